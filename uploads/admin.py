from django.contrib import admin
from django.utils.html import format_html

from .models import Dish, Picture


def thumbnail(picture):
    if not picture:
        return "—"
    return format_html(
        '<a href="{}"><img src="{}" alt="{}" height="80"></a>',
        picture.display.url,
        picture.thumbnail.url,
        picture,
    )


@admin.register(Dish)
class DishAdmin(admin.ModelAdmin):
    list_display = ["name", "restaurant", "created", "cover"]
    search_fields = ["name", "restaurant"]
    date_hierarchy = "created"

    def get_queryset(self, request):
        return super().get_queryset(request).with_cover()

    @admin.display
    def cover(self, dish):
        return thumbnail(dish.cover)


@admin.register(Picture)
class PictureAdmin(admin.ModelAdmin):
    """Pictures come by upload alone, which makes their renditions."""

    list_display = ["preview", "dish", "uploaded", "width", "height"]
    list_select_related = ["dish"]
    date_hierarchy = "uploaded"
    fields = ["preview", "dish", "uploaded", "width", "height"]
    readonly_fields = ["preview", "uploaded", "width", "height"]
    search_fields = ["dish__name", "dish__restaurant"]
    autocomplete_fields = ["dish"]

    def has_add_permission(self, request):
        return False

    @admin.display(description="picture")
    def preview(self, picture):
        return thumbnail(picture)
