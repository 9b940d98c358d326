from django import forms
from django.contrib import admin, messages
from django.contrib.admin.widgets import AdminTextInputWidget
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db import transaction
from django.db.models import Count, OuterRef, Q, Subquery
from django.db.models.functions import Coalesce
from django.http import Http404
from django.shortcuts import get_object_or_404
from django.template.defaultfilters import filesizeformat
from django.urls import path, reverse
from django.utils.functional import cached_property
from django.utils.html import format_html

from .forms import CaptionField, DishForm
from .models import MAX_FOUND, Ban, Dish, Picture, Report

MAX_LISTED = 10_000  # rows


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


class NewestPaginator(Paginator):
    """Pages of the newest rows alone: counting all and skipping most of them takes seconds."""

    @cached_property
    def count(self):
        return self.object_list.values("pk")[:MAX_LISTED].count()


class LongList(admin.ModelAdmin):
    """A list that takes as long with a million rows as with a thousand."""

    paginator = NewestPaginator
    show_full_result_count = False
    actions_selection_counter = False  # It would offer to select all rows, and count the newest.
    search_help_text = f"At most {MAX_LISTED:,} are listed and counted: the newest that match."
    sortable_by = []

    def get_search_results(self, request, queryset, search_term):
        return (self.search(queryset, search_term) if search_term else queryset), False

    def search(self, rows, text):
        return rows.search(text)


@admin.register(Dish)
class DishAdmin(LongList):
    form = DishForm
    list_display = ["name", "restaurant", "created", "cover"]
    search_fields = ["search_text"]

    def get_queryset(self, request):
        return super().get_queryset(request).with_cover()

    def get_deleted_objects(self, objs, request):
        """Count the pictures and their reports. Django would list each of them."""
        pictures = Picture.objects.filter(dish__in=[dish.pk for dish in objs])
        reports = Report.objects.filter(picture__in=pictures)
        counts = {Dish: len(objs), Picture: pictures.count(), Report: reports.count()}
        found = {model: count for model, count in counts.items() if count}
        forbidden = {
            model._meta.verbose_name
            for model in found
            if not self.admin_site.get_model_admin(model).has_delete_permission(request)
        }
        named = {model._meta.verbose_name_plural: count for model, count in found.items()}
        return [str(dish) for dish in objs], named, forbidden, []

    def delete_model(self, request, obj):
        self.delete_queryset(request, Dish.objects.filter(pk=obj.pk))

    def delete_queryset(self, request, queryset):
        with transaction.atomic():
            # The lock waits for photos that are being stored. Those that come later are refused.
            dishes = queryset.prefetch_related(None).order_by("pk").select_for_update()
            [*dishes.values_list("pk")]
            super().delete_queryset(request, queryset)

    def cover(self, dish):
        return thumbnail(dish.cover)


def count_reports(picture):
    """Return an expression that counts the reports of the picture whose id is in a field."""
    reports = Report.objects.filter(picture=OuterRef(picture)).order_by().values("picture")
    return Coalesce(Subquery(reports.annotate(count=Count("pk")).values("count")), 0)


def link_reports(pk, count):
    """Return the number of reports of a picture, as a link to them if there are any."""
    url = reverse("admin:uploads_report_changelist")
    return format_html('<a href="{}?picture={}">{}</a>', url, pk, count) if count else 0


class PictureActions(LongList):
    """The actions on the pictures of the selected rows."""

    def get_pictures(self, rows):
        return rows

    def has_change_picture_permission(self, request):
        return request.user.has_perm("uploads.change_picture")

    def has_ban_permission(self, request):
        return request.user.has_perm("uploads.add_ban")

    @admin.action(description="Hide the selected pictures", permissions=["change_picture"])
    def hide(self, request, queryset):
        pictures = self.get_pictures(queryset).filter(hidden=False)
        self._each(request, pictures, Picture.hide, "hidden")

    @admin.action(description="Show the selected pictures again", permissions=["change_picture"])
    def show(self, request, queryset):
        pictures = self.get_pictures(queryset).filter(hidden=True)
        self._each(request, pictures, Picture.show, "shown again")

    @admin.action(description="Ban the diners of the selected pictures", permissions=["ban"])
    def ban(self, request, queryset):
        for picture in self.get_pictures(queryset):
            if picture.diner:
                Ban.objects.get_or_create(diner=picture.diner)
                self.message_user(request, f"The diner of {picture} is banned.")
            else:
                self.message_user(
                    request,
                    f"{picture} came from a browser without a cookie, which cannot be banned.",
                    messages.WARNING,
                )

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


class PictureForm(forms.ModelForm):
    caption = CaptionField(widget=AdminTextInputWidget)


@admin.register(Picture)
class PictureAdmin(PictureActions):
    """Pictures cannot be added here: only an upload brings an original."""

    form = PictureForm
    list_display = [
        "preview",
        "dish",
        "caption",
        "reports",
        "uploaded",
        "pixels",
        "hidden",
        "original_link",
    ]
    list_display_links = ["dish"]
    list_filter = ["hidden"]
    list_select_related = ["dish"]
    list_per_page = 50
    readonly_fields = [
        "preview",
        "dish",
        "reports",
        "uploaded",
        "pixels",
        "size",
        "hidden",
        "original_link",
    ]
    fields = [*readonly_fields, "caption"]
    search_fields = ["dish__search_text", "caption"]
    actions = ["hide", "show", "ban"]

    def get_queryset(self, request):
        return super().get_queryset(request).annotate(report_count=count_reports("pk"))

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
        """Let staff download an original, byte for byte."""
        picture = get_object_or_404(Picture, pk=pk)
        if not self.has_view_permission(request, picture):
            raise PermissionDenied
        try:
            return picture.original.storage.send(picture.original.name)
        except FileNotFoundError as error:
            raise Http404(f"{picture} has lost its original.") from error

    @admin.display(description="picture")
    def preview(self, picture):
        return thumbnail(picture)

    def pixels(self, picture):
        return f"{picture.width} by {picture.height}"

    def size(self, picture):
        """Return the size of the original. The list would have to ask the store for each row."""
        try:
            return filesizeformat(picture.original.size)
        except FileNotFoundError:
            return "no original"

    @admin.display(description="original")
    def original_link(self, picture):
        url = reverse("admin:uploads_picture_original", args=[picture.pk])
        return format_html('<a href="{}">Fetch</a>', url)

    def reports(self, picture):
        return link_reports(picture.pk, picture.report_count)


@admin.register(Report)
class ReportAdmin(PictureActions):
    """Reports come from diners. Staff delete a report that they have dealt with."""

    list_display = ["preview", "dish", "reason", "created", "reports"]
    list_display_links = ["reason"]
    list_select_related = ["picture__dish"]
    list_per_page = 50
    list_filter = ["created"]
    fields = list_display
    search_fields = ["picture__dish__search_text", "reason"]
    actions = ["hide", "ban"]

    def get_queryset(self, request):
        return super().get_queryset(request).annotate(report_count=count_reports("picture"))

    def search(self, rows, text):
        of_dishes = Q(picture__dish__in=Dish.objects.search(text)[:MAX_FOUND])
        return rows.filter(of_dishes | Q(reason__icontains=text))

    def get_pictures(self, rows):
        return Picture.objects.filter(pk__in=rows.values("picture")).select_related("dish")

    def has_add_permission(self, request):
        return False

    def has_change_permission(self, request, obj=None):
        return False

    @admin.display(description="picture")
    def preview(self, report):
        return thumbnail(report.picture)

    def dish(self, report):
        """Link to the picture, as the list of pictures does."""
        url = reverse("admin:uploads_picture_change", args=[report.picture_id])
        return format_html('<a href="{}">{}</a>', url, report.picture.dish)

    def reports(self, report):
        return link_reports(report.picture_id, report.report_count)


@admin.register(Ban)
class BanAdmin(admin.ModelAdmin):
    """Bans come from actions. Staff delete a ban to lift it."""

    list_display = ["diner", "created", "pictures"]
    fields = list_display
    search_fields = ["diner"]

    def has_add_permission(self, request):
        return False

    def has_change_permission(self, request, obj=None):
        return False

    def pictures(self, ban):
        url = reverse("admin:uploads_picture_changelist")
        return format_html('<a href="{}?diner={}">See them</a>', url, ban.diner)
