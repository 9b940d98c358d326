"""The pages, the upload and its progress, as HTTP."""

import secrets
from contextlib import suppress
from http import HTTPStatus
from xml.etree import ElementTree

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.db import connection, transaction
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

from .forms import DishForm, Refusal, UploadForm, validate_before_reading
from .health import get_health
from .models import Dish, Picture
from .progress import bad_progress_id, get_progress_id, get_record, progress_of
from .uploadhandler import get_refusals
from .uploadlog import log_upload

DISHES_PER_PAGE = 12
PICTURES_PER_PAGE = 24

STATUSES = {
    "no_picture": HTTPStatus.BAD_REQUEST,
    "bad_progress_id": HTTPStatus.BAD_REQUEST,
    "too_many": HTTPStatus.BAD_REQUEST,
    "interrupted": HTTPStatus.BAD_REQUEST,
    "csrf": HTTPStatus.FORBIDDEN,
    "hidden": HTTPStatus.FORBIDDEN,
    "unknown_dish": HTTPStatus.NOT_FOUND,
    "too_large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "not_an_image": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "too_many_pixels": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "storage_full": HTTPStatus.INSUFFICIENT_STORAGE,
    "server_error": HTTPStatus.INTERNAL_SERVER_ERROR,
}


@require_safe
def dish_list(request):
    page = Paginator(Dish.objects.with_cover(), DISHES_PER_PAGE).get_page(request.GET.get("page"))

    return upload_page(request, "uploads/dish_list.html", {"page": page})


@require_http_methods(["GET", "HEAD", "POST"])
def dish_new(request):
    if request.method != "POST":
        return render(request, "uploads/dish_new.html", {"form": DishForm()})

    form = DishForm(request.POST)
    # One transaction, so that of two equal posts at once the second sees the first's dish.
    with transaction.atomic():
        if form.is_valid():
            return redirect(form.save())

    return render(request, "uploads/dish_new.html", {"form": form})


@require_safe
def dish_detail(request, pk):
    return dish_page(request, get_object_or_404(Dish, pk=pk))


def dish_page(request, dish, refusals=(), status=HTTPStatus.OK):
    pictures = dish.pictures.shown()
    page = Paginator(pictures, PICTURES_PER_PAGE).get_page(request.GET.get("page"))

    context = {"dish": dish, "page": page, "refusals": refusals, "diner": get_diner(request)}
    return upload_page(request, "uploads/dish_detail.html", context, status)


def upload_page(request, template, context, status=HTTPStatus.OK):
    """Render a page that holds the form, and name the browser that may send it."""
    form = {"form": UploadForm(auto_id="%s"), "poll_interval": settings.PROGRESS_POLL_INTERVAL}
    response = render(request, template, {**context, **form}, status=status)
    set_diner(request, response)
    return response


def get_diner(request):
    """Return what tells this browser from others, or "" where it has seen no form yet."""
    return request.get_signed_cookie("diner", default="")


def set_diner(request, response):
    """Name the browser before it uploads: of several uploads at once each would name it anew.

    The name is in a signed cookie. In a session it would cost a row for each passer-by.
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
    """Ask whether a diner wants to take back a picture of theirs, and do it."""
    pictures = Picture.objects.shown().exclude(diner="")
    picture = get_object_or_404(pictures, pk=pk, diner=get_diner(request))

    if request.method == "POST":
        picture.delete()
        return redirect("dish_detail", picture.dish_id)  # the dish may be gone, too

    return render(request, "uploads/take_back.html", {"picture": picture})


# The check for forged requests reads the form, which is the whole body. It comes inside, so that
# what goes wrong while the body is read is answered like everything else.
@csrf_exempt
@require_POST
def upload(request):
    """Keep the photos of a form post, and tell in XML, or on a page, what became of each."""
    try:
        validate_before_reading(request)
        let_go_of_database()
        return receive(request)
    except Exception as error:  # noqa: BLE001
        refusal = Refusal.of(error)
        abandon(request, refusal)
        return answer(request, refusals=[refusal])
    finally:
        drain(request)


@csrf_protect
def receive(request):
    fields, files = request.POST, request.FILES  # parsed here, and judged on the way
    form = UploadForm(fields, files, refusals=get_refusals(request))
    if not form.is_valid():
        return answer(request, form.cleaned_data.get("id"), refusals=[form.get_refusal()])

    let_go_of_database()
    pictures, refusals = form.save(get_diner(request))
    return answer(request, form.cleaned_data["id"], pictures, refusals)


def let_go_of_database():
    """Close the connection before a wait that may be long: it holds files and memory."""
    if not connection.in_atomic_block:
        connection.close()


def csrf_failure(request, reason=""):
    if request.path != reverse("upload"):
        return csrf.csrf_failure(request, reason)

    message = "This form is too old, or cookies are off in your browser; please load the page anew."
    return answer(request, refusals=[Refusal("csrf", message)])


def bad_request(request, exception):
    """Answer a request that Django refuses before any view: its Host is not one of ours."""
    if request.path != reverse("upload"):
        return defaults.bad_request(request, exception)

    drain(request)
    message = "This site does not go by the name that it was asked for; please load the page anew."
    return answer(request, refusals=[Refusal("csrf", message)])


def not_found(request, exception):
    """Answer without the form, which Django's own view reads: it may be one that nobody can."""
    return render(request, "404.html", status=HTTPStatus.NOT_FOUND)


def abandon(request, refusal):
    """Clean up after an upload that raised, and tell who polls while the rest of it is read.

    Django's parser raises without a word to its handlers, which hold a file and the record.
    """
    for handler in request.upload_handlers:
        with suppress(OSError):  # A full disk fails once more when the file is closed.
            handler.upload_interrupted()
    progress = progress_of(request)
    progress.refuse(refusal)
    drain(request)
    progress.delete()


def drain(request):
    """Read what is left of the body; an answer that comes before gets lost in a proxy."""
    # Of a body in chunks Django reads nothing; a server that has its end may be asked itself.
    terminated = request.environ.get("wsgi.input_terminated")
    body = request.environ["wsgi.input"] if terminated else request
    with suppress(OSError):
        while body.read(2**16):
            pass


def answer(request, dish=None, pictures=(), refusals=()):
    log_upload(request, dish, pictures, refusals)
    status = HTTPStatus.OK if pictures else STATUSES[refusals[0].code]

    if request.get_preferred_type(["application/xml", "text/html"]) != "text/html":
        content = ElementTree.tostring(
            upload_element(pictures, refusals, get_diner(request)), "utf-8"
        )
        return HttpResponse(content, content_type="application/xml", status=status)

    if dish is None:
        return render(request, "uploads/refused.html", {"refusals": refusals}, status=status)

    return dish_page(request, dish, refusals, status) if refusals else redirect(dish)


def upload_element(pictures, refusals, diner):
    upload = ElementTree.Element("upload")
    status = ElementTree.SubElement(upload, "status")
    status.text = ("partial" if refusals else "ok") if pictures else "error"
    for picture in pictures:
        ElementTree.SubElement(upload, "picture", picture_attributes(picture, diner))
    for code, message, file in refusals:
        attributes = {"code": code, "file": file} if file else {"code": code}
        ElementTree.SubElement(upload, "error", attributes).text = message
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
    """Answer with the record of an upload as it stands, or null: no news of it."""
    try:
        progress_id = get_progress_id(request)
    except ValidationError:
        progress_id = None
    if progress_id is None:
        return JsonResponse({"error": bad_progress_id().message}, status=HTTPStatus.BAD_REQUEST)

    record = get_record(request, progress_id)
    return HttpResponse(record or "null", content_type="application/json")


@never_cache
@require_safe
def healthz(request):
    """Answer what the database, the cache and the disk say, with 503 if one of them is not well."""
    health = get_health()
    is_well = set(health.values()) == {"ok"}
    return JsonResponse(health, status=HTTPStatus.OK if is_well else HTTPStatus.SERVICE_UNAVAILABLE)
