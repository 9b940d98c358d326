"""The dishes, and the pictures that diners uploaded of them."""

import secrets
import unicodedata
from functools import partial

from django.db import IntegrityError, connection, models, transaction
from django.db.models.functions import Coalesce
from django.db.models.signals import pre_delete
from django.dispatch import receiver
from django.urls import reverse
from django.utils import timezone
from django.utils.functional import cached_property

from . import refusals, renderer, sizes
from .storage import BATCH_SIZE, delete_files, get_original_storage

DISPLAY_SUFFIX = f"-{sizes.DISPLAY_SIZE}.jpg"
THUMBNAIL_SUFFIX = f"-{sizes.THUMBNAIL_SIZE}.jpg"

CAPTION_MAX_LENGTH = 140  # characters
REASON_MAX_LENGTH = 140  # characters
COVER_FIELDS = ("id", "display", "thumbnail", "width", "height")  # what the pages show of it
SEARCH_MAX_WORDS = 10  # a character may be several: U+FDFA is four, and 100 of them took 50 ms
TRIGRAM_LENGTH = 3  # characters; PostgreSQL's index finds no shorter word
MAX_SEARCHED = 20_000  # dishes without an index
MAX_FOUND = 1000  # dishes whose pictures staff find

# Letters that NFKD does not take apart, and the apostrophe that phones type.
LETTERS = str.maketrans(
    {"æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ł": "l", "\u0131": "i", "\u2019": "'"}
)


class DishQuerySet(models.QuerySet):
    def search(self, text):
        """Return the dishes with each word of a text in them, whatever its case and accents.

        Only the first words count: without an index the database reads all dishes for each. If all
        words are too short for the index, only the newest dishes are searched.
        """
        dishes, words = self, fold(text).split()[:SEARCH_MAX_WORDS]
        for word in words:
            dishes = dishes.filter(search_text__contains=word)
        if words and max(map(len, words)) < TRIGRAM_LENGTH:
            oldest = Dish.objects.values(oldest=models.F("pk") - MAX_SEARCHED)[:1]
            dishes = dishes.filter(pk__gt=models.Subquery(oldest))
        return dishes

    def with_cover(self):
        """Fetch each dish with its newest shown picture, for Dish.cover and Dish.photo_count.

        The index `picture_shown` finds the newest picture, and is all that the count reads.
        """
        shown = Picture.objects.shown().filter(dish=models.OuterRef("pk"))
        newest = {f"cover_{name}": models.Subquery(shown.values(name)[:1]) for name in COVER_FIELDS}
        count = shown.order_by().values("dish").values(count=models.Count("pk"))
        return self.annotate(**newest, photo_count=Coalesce(models.Subquery(count), 0))


class Dish(models.Model):
    name = models.CharField(max_length=100)
    restaurant = models.CharField(max_length=100)
    created = models.DateTimeField(default=timezone.now, editable=False)
    search_text = models.TextField(editable=False, default="", db_default="")

    objects = DishQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        verbose_name_plural = "dishes"
        constraints = [
            models.UniqueConstraint(
                fields=["name", "restaurant"],
                name="unique_name_and_restaurant",
                violation_error_code="not_unique",
                violation_error_message="This dish of this restaurant is here already.",
            )
        ]

    def __str__(self):
        return f"{self.name}, {self.restaurant}"

    def save(self, *args, **kwargs):
        self.search_text = fold(f"{self.name} {self.restaurant}")
        super().save(*args, **kwargs)

    def get_absolute_url(self):
        return reverse("dish_detail", args=[self.pk])

    @cached_property
    def cover(self):
        """The newest shown picture, or None. Only dishes from with_cover() have it."""
        fields = {name: getattr(self, f"cover_{name}") for name in COVER_FIELDS}
        return Picture(dish=self, **fields) if self.cover_id else None


class PictureQuerySet(models.QuerySet):
    def shown(self):
        return self.filter(hidden=False)

    def search(self, text):
        """Return the pictures of the dishes that a text finds, and those with it in their caption.

        If many dishes match, only the newest of them count.
        """
        of_dishes = Picture.objects.filter(dish__in=Dish.objects.search(text)[:MAX_FOUND])
        captioned = Picture.objects.filter(caption__icontains=text.replace("\0", " "))
        # As a union, since no index serves both conditions at once.
        found = [pictures.order_by().values("pk") for pictures in (of_dishes, captioned)]
        return self.filter(pk__in=found[0].union(found[1]))

    def owned_by(self, *diners):
        """Return the shown pictures of these diners, who may change them."""
        return self.shown().filter(diner__in=diners).exclude(diner="")

    def in_batches(self, field):
        """Yield the pictures in lists, in the order of a field that holds names of files.

        A store lists its files in this order, too. No more than a list is held in memory.
        """
        pictures, last = self.order_by(field), ""
        while batch := list(pictures.filter(**{f"{field}__gt": last})[:BATCH_SIZE]):
            yield batch
            last = getattr(batch[-1], field).name

    def cancel(self, diner, progress_ids):
        """Delete what these uploads of a diner have stored, and let them store nothing later."""
        rows = [Cancellation(diner=diner, progress_id=progress_id) for progress_id in progress_ids]
        Cancellation.objects.bulk_create(rows, ignore_conflicts=True)
        # The index leaves out empty ids, and SQLite uses it only for a query that does so, too.
        pictures = self.owned_by(diner).exclude(progress_id="")
        pictures.filter(progress_id__in=progress_ids).delete()

    def get_or_store(self, dish, file, network="", **fields):
        """Return the picture of an uploaded file, and whether it was created.

        The same bytes are kept once for a dish, whether their picture is shown or hidden.
        `file.digest` is the file's SHA-256. `network` is the client's: the files of a network wait
        in one queue. `fields` are those of a new picture: diner, caption and progress_id. If
        anything fails, nothing is kept but files that prune_uploads removes. Raise ValidationError
        if the file cannot be rendered, the dish is gone or the upload was cancelled, OSError if the
        disk or the store fails, DatabaseError if the row cannot be written.
        """
        picture = self.model(dish=dish, digest=file.digest, **fields)
        if twin := self._find_twin(picture):
            return twin, False
        close_database()  # The wait for a renderer may be long.

        with renderer.render(file.temporary_file_path(), network) as renditions:
            try:
                picture.write(file, renditions)
            except IntegrityError:
                if twin := self._find_twin(picture):  # Another upload of the same bytes was faster.
                    return twin, False
                if not Dish.objects.filter(pk=dish.pk).exists():
                    raise refusals.DELETED_DISH.error() from None
                raise
        picture.delete_if_cancelled()
        return picture, True

    def _find_twin(self, picture):
        """Return the picture of the same bytes, or None. Its owner may have sent a new caption."""
        twin = self.filter(dish=picture.dish, digest=picture.digest).first()
        if twin and twin.is_owned_by(picture.diner) and picture.caption:
            twin.write_caption(picture.caption)
        return twin


class Picture(models.Model):
    # The constraint below has an index of all pictures of a dish.
    dish = models.ForeignKey(Dish, models.CASCADE, related_name="pictures", db_index=False)
    original = models.FileField(storage=get_original_storage, editable=False)
    display = models.FileField(editable=False)
    thumbnail = models.FileField(editable=False)
    width = models.PositiveIntegerField(editable=False, help_text="Of the original, in pixels.")
    height = models.PositiveIntegerField(editable=False, help_text="Of the original, in pixels.")
    uploaded = models.DateTimeField(default=timezone.now, editable=False)
    hidden = models.BooleanField(default=False, editable=False)
    digest = models.CharField(max_length=64, editable=False, help_text="SHA-256 of the original.")
    diner = models.CharField(max_length=32, editable=False, help_text="Who may take it back.")
    caption = models.CharField(max_length=CAPTION_MAX_LENGTH, blank=True, default="", db_default="")
    progress_id = models.CharField(
        max_length=64,
        blank=True,
        default="",
        db_default="",
        editable=False,
        help_text="Of the upload that stored it.",
    )

    objects = PictureQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        constraints = [models.UniqueConstraint(fields=["dish", "digest"], name="once_for_a_dish")]
        indexes = [
            models.Index(
                fields=["progress_id"],
                name="picture_progress_id",
                condition=~models.Q(progress_id=""),
            ),
            # The page of a dish, and its cover and count in the list.
            models.Index(
                fields=["dish", "-id"], name="picture_shown", condition=models.Q(hidden=False)
            ),
            # The staff's list of the hidden pictures, and that of a banned diner.
            models.Index(fields=["-id"], name="picture_hidden", condition=models.Q(hidden=True)),
            models.Index(fields=["diner"], name="picture_diner"),
            # prune_uploads asks which of the files have a row.
            models.Index(fields=["original"], name="picture_original"),
            models.Index(fields=["display"], name="picture_display"),
            models.Index(fields=["thumbnail"], name="picture_thumbnail"),
        ]

    def __str__(self):
        return f"Picture {self.pk} of {self.dish}"

    @property
    def thumbnail_size(self):
        """Width and height of the thumbnail, in pixels."""
        return sizes.fit((self.width, self.height), sizes.THUMBNAIL_SIZE)

    @property
    def srcset(self):
        """Both renditions with their widths, for a browser to choose from."""
        width, _ = sizes.fit((self.width, self.height), sizes.DISPLAY_SIZE)
        return f"{self.thumbnail.url} {self.thumbnail_size[0]}w, {self.display.url} {width}w"

    def is_owned_by(self, *diners):
        """Return whether the picture is among PictureQuerySet.owned_by() of these diners."""
        return not self.hidden and bool(self.diner) and self.diner in diners

    def renditions(self):
        return [self.display, self.thumbnail]

    def has_present_sizes(self):
        """Return whether both renditions have the present sizes, which are in their names."""
        suffixes = DISPLAY_SUFFIX, THUMBNAIL_SUFFIX
        return all(map(str.endswith, (self.display.name, self.thumbnail.name), suffixes))

    def files(self):
        return [self.original, *self.renditions()]

    def show(self):
        """Make new renditions, and show the picture with them.

        Raise DoesNotExist if somebody else deleted or changed the picture in the meantime.
        """
        original = self.original
        with (
            original.storage.open_path(original.name) as path,
            renderer.render(path) as renditions,
        ):
            old = self.renditions()
            try:
                self._write_renditions(renditions)
                self._replace(old)
            except BaseException:
                # Ctrl-C may come after the commit: the row names the new files then.
                if not Picture.objects.filter(pk=self.pk, display=self.display.name).exists():
                    delete_files(self.renditions())
                raise

    def hide(self):
        """Take the picture off the pages, and delete its renditions.

        Raise DoesNotExist if somebody else deleted or changed the picture in the meantime.
        """
        old = self.renditions()
        self.display = self.thumbnail = ""
        self._replace(old)

    def write(self, file, renditions):
        """Store the original and its renditions, then the row. If that fails, keep none of them.

        If the database does not answer the commit, keep the files: the row may be there.
        """
        self.original = f"{secrets.token_hex(16)}{renditions.suffix}"
        self.width, self.height = renditions.width, renditions.height
        is_committing = False
        try:
            self.original.storage.save(self.original.name, file)
            self._write_renditions(renditions)
            with transaction.atomic():
                self.save(force_insert=True)
                is_committing = True
        except (ConnectionError, TimeoutError):
            raise  # The store is away, and each attempt takes seconds: prune_uploads deletes them.
        except BaseException as error:
            if not (is_committing and connection.is_unavailable(error)):
                delete_files(self.files())
            raise

    def write_caption(self, caption):
        """Write the caption alone: somebody else may hide the picture in the meantime."""
        self.caption = caption
        Picture.objects.filter(pk=self.pk).update(caption=caption)

    def report(self, diner, reason):
        """Keep a diner's report of the picture. It replaces an earlier one of the same diner."""
        self.reports.filter(diner=diner).exclude(diner="").delete()
        self.reports.create(diner=diner, reason=reason)

    def delete_if_cancelled(self):
        """Delete the picture and raise ValidationError if its upload was cancelled."""
        # The row was committed before this query, and cancel() commits the Cancellation before it
        # looks for the row. The later of the two commits is therefore followed by a query that sees
        # both, in PostgreSQL's READ COMMITTED, too.
        if Cancellation.objects.filter(progress_id=self.progress_id, diner=self.diner).exists():
            self.delete()
            raise refusals.CANCELLED.error()

    def _write_renditions(self, renditions):
        """Store renditions under new names, so that browsers may cache them for ever."""
        name = secrets.token_hex(16)
        # Set both names first: cleaning up after a failure must not delete the old files.
        self.display, self.thumbnail = f"{name}{DISPLAY_SUFFIX}", f"{name}{THUMBNAIL_SUFFIX}"
        self.display.storage.save(self.display.name, renditions.display)
        self.thumbnail.storage.save(self.thumbnail.name, renditions.thumbnail)

    def _replace(self, old):
        """Write the names of the renditions, and delete the old ones after the commit."""
        self.hidden = not self.display
        unchanged = Picture.objects.filter(pk=self.pk, display=old[0].name)
        names = {"display": self.display.name, "thumbnail": self.thumbnail.name}
        if not unchanged.update(hidden=self.hidden, **names):
            raise Picture.DoesNotExist(f"{self} was deleted or changed meanwhile.")
        transaction.on_commit(lambda: delete_files(old))


class Cancellation(models.Model):
    """An upload that its diner cancelled: it must store nothing."""

    progress_id = models.CharField(max_length=64)
    diner = models.CharField(max_length=32)
    created = models.DateTimeField(default=timezone.now, db_index=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["progress_id", "diner"], name="once_for_a_diner")
        ]

    def __str__(self):
        return f"Cancellation of {self.progress_id}"


class Report(models.Model):
    """A diner's reason to report a picture. Without the cookie, `diner` is empty."""

    picture = models.ForeignKey(Picture, models.CASCADE, related_name="reports")
    reason = models.CharField(max_length=REASON_MAX_LENGTH)
    diner = models.CharField(max_length=32, blank=True)
    created = models.DateTimeField(default=timezone.now, db_index=True)

    class Meta:
        ordering = ["-pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["picture", "diner"],
                name="one_report_of_a_diner",
                condition=~models.Q(diner=""),
            )
        ]

    def __str__(self):
        return f"Report {self.pk} of picture {self.picture_id}"


class Ban(models.Model):
    """A diner from whom no more photos are accepted."""

    diner = models.CharField(max_length=32, unique=True)
    created = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["-pk"]

    def __str__(self):
        return f"Ban of {self.diner}"


def fold(text):
    """Return a text without case and accents, as it is searched."""
    # PostgreSQL refuses NUL.
    characters = unicodedata.normalize("NFKD", text.replace("\0", " "))
    bare = "".join(character for character in characters if not unicodedata.combining(character))
    return bare.casefold().translate(LETTERS)


def close_database():
    """Give the database connection back before a long wait, so that others can use it."""
    if not connection.in_atomic_block:
        connection.close()


@receiver(pre_delete, sender=Picture)
def delete_files_with_row(instance, **kwargs):
    """Delete a picture's files after its row is deleted: alone, in bulk, or with its dish."""
    # Read the row again: it may have new renditions since the instance was read. The lock waits for
    # a report of the picture that is being stored, which is then deleted with it.
    for picture in Picture.objects.select_for_update().filter(pk=instance.pk):
        transaction.on_commit(partial(delete_files, picture.files()))
