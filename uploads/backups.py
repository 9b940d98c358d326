"""Backups: generations of the database, the originals and the settings, in one folder.

A generation has its date as its name. It gets the name when it is complete. Originals never change,
so each generation has hard links to those of the last one.
"""

import hashlib
import logging
import os
import random
import re
import shutil
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.core.files import locks
from django.core.management import CommandError, call_command

from . import snapshot

DATE = "%Y-%m-%dT%H-%M-%S"  # in UTC
NAME = re.compile(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d")
UNFINISHED = "unfinished"
MAX_SHRINKAGE = 0.1
SAMPLE = 100  # linked originals that are read again in each backup

logger = logging.getLogger(__name__)


class Generation:
    def __init__(self, folder):
        self.folder = folder
        self.database = folder / "db.sqlite3"
        self.originals = folder / "originals"
        self.settings = folder / "gourmious.env"
        self.lost = folder / "lost.txt"  # the originals that it lacks, if there are any

    def __str__(self):
        return str(self.folder)

    @property
    def date(self):
        return datetime.strptime(self.folder.name, DATE).replace(tzinfo=UTC)

    def count(self):
        """Return how many dishes, pictures and originals there are, by name."""
        originals = sum(1 for _ in self.originals.iterdir())
        return {**snapshot.count_rows(self.database), "originals": originals}

    def find_faults(self, to_read):
        """Return the pictures whose original is missing, or is among those to read and damaged."""
        names = {path.name for path in self.originals.iterdir()}
        return [
            picture
            for picture in snapshot.read_pictures(self.database)
            if picture.original not in names
            or (picture in to_read and not is_whole(self.originals, picture))
        ]

    def find_new_faults(self):
        """Return the pictures whose original got lost or damaged since the backup, by a sample."""
        known = self.lost.read_text() if self.lost.exists() else ""
        pictures = snapshot.read_pictures(self.database)
        faults = self.find_faults(take_sample(pictures))
        return [picture for picture in faults if picture.original not in known]


class Backup:
    """One run of a backup into a folder, which its lock protects from others."""

    def __init__(self, folder):
        self.folder = folder
        generations = find_generations(folder)
        self.last = generations[-1] if generations else None
        self.new = Generation(folder / UNFINISHED)
        self.copied = []
        self.losses = []  # sentences

    def run(self, force):
        """Make a generation; raise CommandError if the site shrank, unless that is forced."""
        date = self.get_date()
        discard(self.new.folder)
        try:
            self.copy_rows()
            if self.last and not force:
                self.validate_counts()
            self.copy_originals()
            os.sync()
            self.check_originals()
            self.new = Generation(self.new.folder.rename(self.folder / date))
            os.sync()
        except BaseException:
            shutil.rmtree(self.folder / UNFINISHED, ignore_errors=True)
            raise

    @property
    def copied_bytes(self):
        return sum(self.sizes[picture.original] for picture in self.copied)

    def get_date(self):
        """Return the name of the new generation, which is always the last in order."""
        now = datetime.now(UTC)
        if self.last:
            now = max(now, self.last.date + timedelta(seconds=1))
        return now.strftime(DATE)

    def copy_rows(self):
        """Copy the rows first: the originals that they name are stored already."""
        self.new.originals.mkdir(parents=True)
        snapshot.copy_database(self.new.database)
        snapshot.validate(self.new.database)
        with self.new.settings.open("w") as file:
            call_command("deployconf", "env", stdout=file)
        self.pictures = snapshot.read_pictures(self.new.database)
        self.sizes = read_sizes(settings.ORIGINALS_ROOT)

    def validate_counts(self):
        """Raise CommandError if the site has lost more than a tenth since the last generation."""
        snapshot.validate(self.last.database)
        originals = sum(picture.original in self.sizes for picture in self.pictures)
        now = {**snapshot.count_rows(self.new.database), "originals": originals}
        for name, before in self.last.count().items():
            if now[name] < (1 - MAX_SHRINKAGE) * before:
                raise CommandError(
                    f"The site has {now[name]} {name}, but {self.last} has {before}, so nothing "
                    "was backed up. Are all disks mounted? If so many were deleted, use --force."
                )

    def copy_originals(self):
        """Link what the last generation has, and copy the others."""
        old_sizes = read_sizes(self.last.originals) if self.last else {}
        sample = take_sample(self.pictures)
        for picture in self.pictures:
            size = self.sizes.get(picture.original)
            same = size is not None and old_sizes.get(picture.original) == size
            if not (same and self.link(picture, check=picture in sample)):
                self.copied.append(picture)
                copy(settings.ORIGINALS_ROOT, picture, self.new.originals)

    def link(self, picture, check):
        """Link an original of the last generation; return False if it cannot be used."""
        if check and not is_whole(self.last.originals, picture):
            logger.warning("%s: the original %s is damaged.", self.last, picture.original)
            return False
        with suppress(OSError):  # Some file systems have no hard links.
            os.link(self.last.originals / picture.original, self.new.originals / picture.original)
            return True
        return False

    def check_originals(self):
        """Read all copies again, from the disk. Record what the site has lost."""
        faults = self.new.find_faults(set(self.copied))
        live = snapshot.read_live_keys() if faults else ()
        # A row is deleted before its file. If it is still there, the original is lost.
        deleted = [picture for picture in faults if picture.pk not in live]
        for picture in deleted:
            (self.new.originals / picture.original).unlink(missing_ok=True)
        snapshot.delete_pictures(self.new.database, [picture.pk for picture in deleted])
        for picture in set(faults) - set(deleted):
            self.record_loss(picture)
        self.pictures = snapshot.read_pictures(self.new.database)
        self.copied = [picture for picture in self.copied if picture not in set(faults)]

    def record_loss(self, picture):
        """Take the original from the last generation, if that has it."""
        copied = self.new.originals / picture.original
        fault = "is damaged" if copied.exists() else "is lost"
        sentence = f"The original of picture {picture.pk}, {picture.original}, {fault}."
        self.losses.append(sentence)
        if copied.exists():
            copied.rename(copied.with_name(f"{copied.name}.damaged"))
        if not (self.last and is_whole(self.last.originals, picture)):
            with self.new.lost.open("a") as file:
                file.write(f"{sentence}\n")
        elif not self.link(picture, check=False):
            copy(self.last.originals, picture, self.new.originals)


def back_up(folder, *, keep, force):
    """Add a generation to a folder, remove old ones, and return the finished Backup."""
    snapshot.validate_site()
    if folder.resolve().is_relative_to(settings.DATA_DIR):
        raise CommandError(f"{folder} is in the data folder; back up to another disk.")
    with set_umask(0o077):
        folder.mkdir(exist_ok=True)
        with lock(folder):
            backup = Backup(folder)
            backup.run(force)
            remove_old(folder, keep)
    return backup


def find_generations(folder):
    """Return the complete generations of a folder, the newest last."""
    return [Generation(path) for path in sorted(folder.glob("*")) if NAME.fullmatch(path.name)]


def read_last_time(folder):
    """Return when the last backup began, in seconds since 1970; 0 if none can be found."""
    try:
        return find_generations(folder)[-1].date.timestamp()
    except (IndexError, OSError, ValueError):  # Its disk may be away; a name may be no real date.
        return 0


def remove_old(folder, keep):
    """Remove all but the newest generations, and the last one that lacks nothing."""
    generations = find_generations(folder)
    good = [generation for generation in generations if not generation.lost.exists()]
    for generation in generations[:-keep]:
        if generation not in good[-1:]:
            discard(generation.folder)


def discard(folder):
    """Remove a generation. If this is interrupted, the rest of it must not look complete."""
    unfinished = folder.with_name(UNFINISHED)
    with suppress(FileNotFoundError):
        folder.rename(unfinished)
        shutil.rmtree(unfinished)


def copy(source, picture, target):
    """Copy an original from one folder to another; leave it out if it cannot be read."""
    try:
        shutil.copyfile(source / picture.original, target / picture.original)
    except OSError:  # Reading may have failed, or writing: a full disk stops the backup.
        if read_digest(source / picture.original):
            raise


@contextmanager
def lock(folder):
    with (folder / ".lock").open("w") as file:
        if not locks.lock(file, locks.LOCK_EX | locks.LOCK_NB):
            raise CommandError(f"Another backup to {folder} is running.")
        yield


@contextmanager
def set_umask(mask):
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def take_sample(pictures):
    return set(random.sample(pictures, min(SAMPLE, len(pictures))))


def read_sizes(folder):
    """Return the sizes of the files of a folder, by name."""
    with os.scandir(folder) as entries:
        return {entry.name: entry.stat().st_size for entry in entries}


def is_whole(folder, picture):
    return read_digest(folder / picture.original) == picture.digest


def read_digest(path):
    """Return the SHA-256 of a file as the disk has it, or None if it cannot be read."""
    with suppress(OSError), path.open("rb") as file:
        # Read the disk again, not the copy in memory.
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return hashlib.file_digest(file, "sha256").hexdigest()
    return None
