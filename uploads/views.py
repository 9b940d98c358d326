"""The pages, the upload and its progress, as HTTP."""

import secrets
from http import HTTPStatus
from xml.etree import ElementTree

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.db import transaction
from django.http import HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views import csrf, defaults
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from django.views.decorators.http import (
    require_GET,
    require_http_methods,
    require_POST,
    require_safe,
)

from . import refusals
from .forms import DishForm, UploadForm, validate_before_reading
from .health import get_health
from .models import Dish, Picture, close_database
from .progress import get_progress_id, get_record, progress_of
from .uploadhandler import end_upload, get_refused_files
from .uploadlog import get_network, log_upload

DISHES_PER_PAGE = 12
PICTURES_PER_PAGE = 24


@require_safe
def dish_list(request):
    page = Paginator(Dish.objects.with_cover(), DISHES_PER_PAGE).get_page(request.GET.get("page"))

    return upload_page(request, "uploads/dish_list.html", {"page": page})


@require_http_methods(["GET", "HEAD", "POST"])
def dish_new(request):
    if request.method != "POST":
        return render(request, "uploads/dish_new.html", {"form": DishForm()})

    form = DishForm(request.POST)
    # One transaction, so that the second of two equal posts sees the first one's dish.
    with transaction.atomic():
        if form.is_valid():
            return redirect(form.save())

    return render(request, "uploads/dish_new.html", {"form": form})


@require_safe
def dish_detail(request, pk):
    return dish_page(request, get_object_or_404(Dish, pk=pk))


def dish_page(request, dish, refused=(), status=HTTPStatus.OK):
    pictures = dish.pictures.shown()
    page = Paginator(pictures, PICTURES_PER_PAGE).get_page(request.GET.get("page"))

    context = {"dish": dish, "page": page, "refusals": refused, "diner": get_diner(request)}
    return upload_page(request, "uploads/dish_detail.html", context, status)


def upload_page(request, template, context, status=HTTPStatus.OK):
    """Render a page that holds the form, and set the cookie of its browser."""
    form = {"form": UploadForm(auto_id="%s"), "poll_interval": settings.PROGRESS_POLL_INTERVAL}
    response = render(request, template, {**context, **form}, status=status)
    set_diner(request, response)
    return response


def get_diner(request):
    """Return the random id of this browser, or "" where it has seen no form yet."""
    return request.get_signed_cookie("diner", default="")


def set_diner(request, response):
    """Set the cookie with the page: parallel first uploads would each set a different one.

    The cookie is signed. A session would cost a row for each visitor.
    """
    if not get_diner(request):
        response.set_signed_cookie(
            "diner",
            secrets.token_hex(16),
            max_age=365 * 24 * 3600,
            secure=request.is_secure(),
            httponly=True,
            samesite="Lax",
        )


@require_http_methods(["GET", "HEAD", "POST"])
def take_back(request, pk):
    """Ask whether a diner wants to take back a picture of their own, and delete it."""
    pictures = Picture.objects.shown().exclude(diner="")
    picture = get_object_or_404(pictures, pk=pk, diner=get_diner(request))

    if request.method == "POST":
        picture.delete()
        return redirect("dish_detail", picture.dish_id)  # the dish may be gone, too

    return render(request, "uploads/take_back.html", {"picture": picture})


# The CSRF check reads the form, which is the whole body. It is inside, so that reading errors are
# answered like all others.
@csrf_exempt
@require_POST
def upload(request):
    """Store the photos of a form, and answer in XML, or with a page, what became of each."""
    try:
        validate_before_reading(request)
        close_database()  # The body may take minutes.
        return receive(request)
    except Exception as error:  # noqa: BLE001
        return answer(request, refused=[refusals.get_refusal(error)])


@csrf_protect
def receive(request):
    fields, files = request.POST, request.FILES  # parsed here, and judged on the way
    form = UploadForm(fields, files, refused=get_refused_files(request))
    if not form.is_valid():
        return answer(request, form.cleaned_data.get("id"), refused=[form.get_refusal()])

    client = get_network(request.META["REMOTE_ADDR"], ipv4_bits=32)
    pictures, refused = form.save(get_diner(request), client)
    return answer(request, form.cleaned_data["id"], pictures, refused)


def csrf_failure(request, reason=""):
    if request.path != reverse("upload"):
        return csrf.csrf_failure(request, reason)

    return answer(request, refused=[refusals.CSRF])


def bad_request(request, exception):
    """Answer a request that Django refuses: its Host is not one of ours, or its form is broken."""
    if request.path != reverse("upload"):
        end_upload(request)  # Any form may hold files.
        return defaults.bad_request(request, exception)

    return answer(request, refused=[refusals.BAD_HOST])


def not_found(request, exception):
    """Answer without reading the form, as Django's own view does: it may be malformed."""
    return render(request, "404.html", status=HTTPStatus.NOT_FOUND)


def answer(request, dish=None, pictures=(), refused=()):
    """End an upload, and answer it in XML, or with a page for a browser without scripts."""
    if not pictures:
        progress_of(request).refuse(refused[0])
    end_upload(request)
    log_upload(request, dish, pictures, refused)
    status = HTTPStatus.OK if pictures else refused[0].status

    if request.get_preferred_type(["application/xml", "text/html"]) != "text/html":
        content = ElementTree.tostring(
            upload_element(pictures, refused, get_diner(request)), "utf-8"
        )
        return HttpResponse(content, content_type="application/xml", status=status)

    if dish is None:
        return render(request, "uploads/refused.html", {"refusals": refused}, status=status)

    return dish_page(request, dish, refused, status) if refused else redirect(dish)


def upload_element(pictures, refused, diner):
    upload = ElementTree.Element("upload")
    status = ElementTree.SubElement(upload, "status")
    status.text = ("partial" if refused else "ok") if pictures else "error"
    for picture in pictures:
        ElementTree.SubElement(upload, "picture", picture_attributes(picture, diner))
    for refusal in refused:
        error = ElementTree.SubElement(upload, "error", code=refusal.code)
        error.text = refusal.message
        if refusal.file:
            error.set("file", refusal.file)
        if refusal.retry:
            error.set("retry", "true")
    return upload


def picture_attributes(picture, diner):
    width, height = picture.thumbnail_size
    attributes = {
        "id": str(picture.pk),
        "url": picture.display.url,
        "thumbnail": picture.thumbnail.url,
        "srcset": picture.srcset,
        "width": str(width),
        "height": str(height),
    }
    if diner and picture.diner == diner:
        attributes["take_back"] = reverse("take_back", args=[picture.pk])
    if picture.known:
        attributes["known"] = "true"
    return attributes


@never_cache
@require_GET
def get_upload_progress(request):
    """Answer with the record of an upload, or null: no news."""
    try:
        progress_id = get_progress_id(request)
    except ValidationError:
        progress_id = None
    if progress_id is None:
        refusal = refusals.BAD_PROGRESS_ID
        return JsonResponse({"error": refusal.message}, status=refusal.status)

    record = get_record(request, progress_id)
    return HttpResponse(record or "null", content_type="application/json")


@never_cache
@require_safe
def healthz(request):
    """Answer with the health of the database, the cache and the disk; 503 if one is not well."""
    health = get_health()
    is_well = set(health.values()) == {"ok"}
    return JsonResponse(health, status=HTTPStatus.OK if is_well else HTTPStatus.SERVICE_UNAVAILABLE)
