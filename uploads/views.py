"""The pages, the upload and its progress, as HTTP."""

from collections import deque
from contextlib import suppress
from http import HTTPStatus
from xml.etree import ElementTree

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.db import transaction
from django.http import HttpResponse, JsonResponse, UnreadablePostError
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views import csrf
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from . import images
from .forms import DishForm, Refusal, UploadForm, refusal
from .models import Dish
from .progress import get_progress_id, get_record

DISHES_PER_PAGE = 12
PICTURES_PER_PAGE = 24

STATUSES = {
    "no_picture": HTTPStatus.BAD_REQUEST,
    "bad_progress_id": HTTPStatus.BAD_REQUEST,
    "too_many": HTTPStatus.BAD_REQUEST,
    "interrupted": HTTPStatus.BAD_REQUEST,
    "csrf": HTTPStatus.FORBIDDEN,
    "unknown_dish": HTTPStatus.NOT_FOUND,
    "too_large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "not_an_image": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "too_many_pixels": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "storage_full": HTTPStatus.INSUFFICIENT_STORAGE,
    "server_error": HTTPStatus.INTERNAL_SERVER_ERROR,
}


@require_GET
def dish_list(request):
    page = Paginator(Dish.objects.with_cover(), DISHES_PER_PAGE).get_page(request.GET.get("page"))

    return render(request, "uploads/dish_list.html", {"page": page})


@require_http_methods(["GET", "POST"])
def dish_new(request):
    form = DishForm(request.POST or None)

    # One transaction, so that of two equal posts at once the second sees the first's dish.
    with transaction.atomic():
        if form.is_valid():
            return redirect(form.save())

    return render(request, "uploads/dish_new.html", {"form": form})


@require_GET
def dish_detail(request, pk):
    return dish_page(request, get_object_or_404(Dish, pk=pk))


def dish_page(request, dish, refusals=(), status=HTTPStatus.OK):
    page = Paginator(dish.pictures.all(), PICTURES_PER_PAGE).get_page(request.GET.get("page"))

    return render(
        request,
        "uploads/dish_detail.html",
        {
            "dish": dish,
            "page": page,
            "refusals": refusals,
            "accept": images.ACCEPT,
            "poll_interval": settings.PROGRESS_POLL_INTERVAL,
        },
        status=status,
    )


# The check for forged requests reads the form, which is the whole body. It comes inside, so that
# what goes wrong while the body is read is answered like everything else.
@csrf_exempt
@require_POST
def upload(request):
    """Keep the photos of a form post, and tell in XML, or on a page, what became of each."""
    try:
        get_progress_id(request)
        return receive(request)
    except Exception as error:  # noqa: BLE001
        abandon(request)
        return answer(request, refusals=[refusal(error)])


@csrf_protect
def receive(request):
    form = UploadForm(request.POST, request.FILES)
    if not form.is_valid():
        return answer(request, form.cleaned_data.get("id"), refusals=[form.get_refusal()])

    pictures, refusals = form.save()
    return answer(request, form.cleaned_data["id"], pictures, refusals)


def csrf_failure(request, reason=""):
    if request.path != reverse("upload"):
        return csrf.csrf_failure(request, reason)

    message = "This form is too old, or cookies are off in your browser; please load the page anew."
    return answer(request, refusals=[Refusal("csrf", message)])


def abandon(request):
    """Clean up after an upload that raised, and read the rest of its body.

    Django's parser raises without a word to its handlers, which hold a file and the record. An
    answer that is given before the body is read gets lost on its way through a proxy.
    """
    for handler in request.upload_handlers:
        handler.upload_interrupted()
    with suppress(UnreadablePostError):
        deque(iter(lambda: request.read(2**16), b""), maxlen=0)


def answer(request, dish=None, pictures=(), refusals=()):
    status = HTTPStatus.OK if pictures else STATUSES[refusals[0].code]

    if request.get_preferred_type(["application/xml", "text/html"]) != "text/html":
        content = ElementTree.tostring(upload_element(pictures, refusals), "utf-8")
        return HttpResponse(content, "application/xml", status)

    if dish is None:
        return render(request, "uploads/refused.html", {"refusals": refusals}, status=status)

    return dish_page(request, dish, refusals, status) if refusals else redirect(dish)


def upload_element(pictures, refusals):
    upload = ElementTree.Element("upload")
    status = ElementTree.SubElement(upload, "status")
    status.text = ("partial" if refusals else "ok") if pictures else "error"
    for picture in pictures:
        ElementTree.SubElement(
            upload,
            "picture",
            id=str(picture.pk),
            url=picture.display.url,
            thumbnail=picture.thumbnail.url,
        )
    for code, message, file in refusals:
        attributes = {"code": code, "file": file} if file else {"code": code}
        ElementTree.SubElement(upload, "error", attributes).text = message
    return upload


@never_cache
@require_GET
def get_upload_progress(request):
    """Answer with the record of an upload as it stands, or null: no news of it."""
    try:
        progress_id = get_progress_id(request)
    except ValidationError as error:
        return JsonResponse({"error": error.message}, status=HTTPStatus.BAD_REQUEST)
    if progress_id is None:
        message = "The query must hold the id of an upload, X-Progress-ID."
        return JsonResponse({"error": message}, status=HTTPStatus.BAD_REQUEST)

    record = get_record(request, progress_id)
    return HttpResponse(record or "null", content_type="application/json")
