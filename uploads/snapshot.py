"""The database in a backup: a copy of the SQLite file."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from django.conf import settings
from django.core.management.base import CommandError
from django.db import connection

TIMEOUT = 45  # seconds to wait for a writer


class Row(NamedTuple):
    """A row of a picture, with the columns that a backup needs."""

    pk: int
    original: str
    digest: str


def validate_site():
    """Raise CommandError unless the rows and the files of the site are on this machine."""
    if connection.vendor != "sqlite" or settings.S3:
        raise CommandError(
            "Only SQLite and local files are backed up and restored here. Use pg_dump and "
            "pg_restore for PostgreSQL, and the tools of their store for the buckets."
        )


def get_database():
    """Return the path of the site's database."""
    return Path(connection.settings_dict["NAME"])


def connect(path, mode):
    """Open an SQLite file that exists. A database in WAL mode needs `rw` even to be read."""
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return closing(sqlite3.connect(uri, uri=True, timeout=TIMEOUT))


def copy_database(target):
    """Copy the database as it is at one moment, even while uploads write to it."""
    if not (source := get_database()).exists():
        raise CommandError(f"There is no database {source}. Is its disk mounted?")
    with connect(source, "rw") as live, closing(sqlite3.connect(target)) as copy:
        live.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")  # The copy is one file, and is never written to.


def validate(path):
    """Raise CommandError if a copied database is damaged."""
    try:
        with connect(path, "ro") as copy:
            faults = [fault for (fault,) in copy.execute("PRAGMA integrity_check")]
    except sqlite3.DatabaseError as error:
        faults = [str(error)]
    if faults != ["ok"]:
        raise CommandError(f"The database {path} is damaged: {faults[0]}.")


def read_pictures(path, mode="ro"):
    with connect(path, mode) as database:
        return [
            Row(*row)
            for row in database.execute("SELECT id, original, digest FROM uploads_picture")
        ]


def read_live_keys():
    """Return the keys of the pictures that the site has now."""
    return {row.pk for row in read_pictures(get_database(), "rw")}


def count_rows(path):
    with connect(path, "ro") as database:
        [dishes] = database.execute("SELECT count(*) FROM uploads_dish").fetchone()
        [pictures] = database.execute("SELECT count(*) FROM uploads_picture").fetchone()
    return {"dishes": dishes, "pictures": pictures}


def delete_pictures(path, keys):
    """Delete pictures from a copied database, with the rows that refer to them."""
    with connect(path, "rw") as copy, copy:
        copy.executemany("DELETE FROM uploads_picture WHERE id = ?", [(key,) for key in keys])
        for table, rowid, parent, _ in copy.execute("PRAGMA foreign_key_check").fetchall():
            if parent == "uploads_picture":
                copy.execute(f"DELETE FROM {table} WHERE rowid = ?", [rowid])  # noqa: S608


def has_pictures():
    """Return whether the site's database has pictures. One that cannot be read has none to lose."""
    try:
        return bool(read_live_keys())
    except sqlite3.DatabaseError:
        return False


def restore_database(source):
    """Replace the site's database. No process may have it open."""
    target = get_database()
    copy = target.with_name(f"{target.name}.restored")
    shutil.copyfile(source, copy)
    # SQLite would apply the old log to the new database.
    for suffix in ("-wal", "-shm"):
        target.with_name(f"{target.name}{suffix}").unlink(missing_ok=True)
    copy.replace(target)
