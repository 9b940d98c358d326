"""The dishes, and the pictures that diners uploaded of them."""

import secrets

from django.conf import settings
from django.core.files.storage import FileSystemStorage
from django.db import models, transaction
from django.db.models.signals import post_delete
from django.dispatch import receiver
from django.urls import reverse
from django.utils import timezone

from . import images


class DishQuerySet(models.QuerySet):
    def with_cover(self):
        """Fetch each dish with its newest picture, for Dish.cover."""
        newest = Picture.objects.all()[:1]
        return self.prefetch_related(models.Prefetch("pictures", newest, to_attr="newest"))


class Dish(models.Model):
    name = models.CharField(max_length=100)
    restaurant = models.CharField(max_length=100)
    created = models.DateTimeField(default=timezone.now, editable=False)

    objects = DishQuerySet.as_manager()

    class Meta:
        ordering = ["-created", "-pk"]
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

    def get_absolute_url(self):
        return reverse("dish_detail", args=[self.pk])

    @property
    def cover(self):
        """The newest picture, or None; the dish comes from with_cover()."""
        return self.newest[0] if self.newest else None


class OriginalStorage(FileSystemStorage):
    """Keep the originals below ORIGINALS_ROOT, readable by the server alone, and without URLs."""

    base_url = None
    file_permissions_mode = 0o600

    @property
    def base_location(self):
        return settings.ORIGINALS_ROOT


class PictureManager(models.Manager):
    def store(self, dish, upload):
        """Keep an uploaded file as a picture of a dish: its files by renaming, then its row.

        Where anything fails, nothing is kept. Raise ValidationError where the file is no picture,
        OSError where the disk fails, DatabaseError where the row cannot be written.
        """
        with images.render(upload) as renditions:
            picture = self.model(dish=dish, width=renditions.width, height=renditions.height)
            name = secrets.token_hex(16)
            try:
                picture.original.save(f"{name}{renditions.suffix}", upload, save=False)
                picture.display.save(f"{name}-display.jpg", renditions.display, save=False)
                picture.thumbnail.save(f"{name}-thumbnail.jpg", renditions.thumbnail, save=False)
                picture.save(force_insert=True)
            except BaseException:
                picture.delete_files()
                raise
        return picture


class Picture(models.Model):
    dish = models.ForeignKey(Dish, models.CASCADE, related_name="pictures")
    original = models.FileField(storage=OriginalStorage)
    display = models.FileField()
    thumbnail = models.FileField()
    width = models.PositiveIntegerField(help_text="Pixels of the original, upright.")
    height = models.PositiveIntegerField(help_text="Pixels of the original, upright.")
    uploaded = models.DateTimeField(default=timezone.now, editable=False)

    objects = PictureManager()

    class Meta:
        ordering = ["-uploaded", "-pk"]

    def __str__(self):
        return f"Picture {self.pk} of {self.dish}"

    def delete_files(self):
        for file in (self.original, self.display, self.thumbnail):
            file.delete(save=False)


@receiver(post_delete, sender=Picture)
def delete_files_with_row(instance, **kwargs):
    """Delete a picture's files once its row is surely gone, in bulk and by its dish as well."""
    transaction.on_commit(instance.delete_files)
