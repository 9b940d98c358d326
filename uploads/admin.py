from django import forms
from django.contrib import admin, messages
from django.contrib.admin.widgets import AdminTextInputWidget
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import FileResponse, Http404
from django.shortcuts import get_object_or_404
from django.template.defaultfilters import filesizeformat
from django.urls import path, reverse
from django.utils.html import format_html

from .forms import CaptionField, DishForm
from .models import Dish, Picture


def thumbnail(picture):
    """Return the thumbnail as a link, or a dash: hidden pictures have none."""
    if not picture or picture.hidden:
        return "—"
    return format_html(
        '<a href="{}"><img src="{}" alt="{}" height="80"></a>',
        picture.display.url,
        picture.thumbnail.url,
        picture,
    )


@admin.register(Dish)
class DishAdmin(admin.ModelAdmin):
    form = DishForm
    list_display = ["name", "restaurant", "created", "cover"]
    search_fields = ["name", "restaurant"]
    date_hierarchy = "created"

    def get_queryset(self, request):
        return super().get_queryset(request).with_cover()

    def delete_queryset(self, request, queryset):
        # Without a transaction, a photo that is stored in between would make it fail.
        with transaction.atomic():
            super().delete_queryset(request, queryset)

    def cover(self, dish):
        return thumbnail(dish.cover)


class PictureForm(forms.ModelForm):
    caption = CaptionField(widget=AdminTextInputWidget)


@admin.register(Picture)
class PictureAdmin(admin.ModelAdmin):
    """Pictures cannot be added here: only an upload brings an original."""

    form = PictureForm
    list_display = ["preview", "dish", "caption", "uploaded", "size", "hidden", "original_link"]
    list_display_links = ["dish"]
    list_filter = ["hidden", "uploaded", "dish__restaurant"]
    list_select_related = ["dish"]
    list_per_page = 50
    date_hierarchy = "uploaded"
    readonly_fields = ["preview", "dish", "uploaded", "size", "hidden", "original_link"]
    fields = [*readonly_fields, "caption"]
    search_fields = ["dish__name", "dish__restaurant", "caption"]
    actions = ["hide", "show"]

    def has_add_permission(self, request):
        return False

    def save_model(self, request, obj, form, change):
        obj.write_caption(obj.caption)

    def get_urls(self):
        original = self.admin_site.admin_view(self.original)
        return [
            path("<int:pk>/original", original, name="uploads_picture_original"),
            *super().get_urls(),
        ]

    def original(self, request, pk):
        """Send an original, byte for byte, as a download."""
        picture = get_object_or_404(Picture, pk=pk)
        if not self.has_view_permission(request, picture):
            raise PermissionDenied
        try:
            return FileResponse(picture.original.open(), as_attachment=True)
        except FileNotFoundError as error:
            raise Http404(f"{picture} has lost its original.") from error

    @admin.display(description="picture")
    def preview(self, picture):
        return thumbnail(picture)

    @admin.display(description="size", ordering="width")
    def size(self, picture):
        pixels = f"{picture.width} by {picture.height}"
        try:
            return f"{pixels}, {filesizeformat(picture.original.size)}"
        except FileNotFoundError:
            return f"{pixels}, no original"

    @admin.display(description="original")
    def original_link(self, picture):
        url = reverse("admin:uploads_picture_original", args=[picture.pk])
        return format_html('<a href="{}">Fetch</a>', url)

    @admin.action(description="Hide the selected pictures", permissions=["change"])
    def hide(self, request, queryset):
        self._each(request, queryset.filter(hidden=False), Picture.hide, "hidden")

    @admin.action(description="Show the selected pictures again", permissions=["change"])
    def show(self, request, queryset):
        self._each(request, queryset.filter(hidden=True), Picture.show, "shown again")

    def _each(self, request, pictures, method, done):
        for picture in pictures:
            try:
                method(picture)
            except Exception as error:  # noqa: BLE001
                self.message_user(
                    request, f"{picture} could not be {done}: {error}", messages.ERROR
                )
            else:
                self.message_user(request, f"{picture} is {done}.")
