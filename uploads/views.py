"""The views: the pages, `upload`, `cancel_upload`, `get_upload_progress` and `healthz`."""

import sys
from contextlib import suppress
from http import HTTPStatus

from django.core.exceptions import ValidationError
from django.core.files.storage import default_storage
from django.db import IntegrityError, transaction
from django.http import FileResponse, Http404, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views import defaults
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from django.views.decorators.http import (
    require_GET,
    require_http_methods,
    require_POST,
    require_safe,
)

from . import refusals
from .body import body_of
from .forms import (
    CaptionField,
    DishForm,
    LineField,
    ReportForm,
    UploadForm,
    validate_before_reading,
    validate_diners,
)
from .health import get_health
from .metrics import IN_FLIGHT
from .models import Dish, Picture, close_database
from .paging import get_page
from .progress import get_cancelled_ids, get_progress_id, get_record, progress_of
from .responses import (
    dish_response,
    error_response,
    form_response,
    get_diner,
    get_diners,
    refused_response,
    upload_response,
)
from .uploadhandler import end_upload, get_refused_files
from .uploadlog import log_upload

DISHES_PER_PAGE = 12
QUERY_MAX_LENGTH = 100  # characters


@require_safe
def dish_list(request):
    query = LineField().to_python(request.GET.get("q", ""))[:QUERY_MAX_LENGTH]  # as names are
    dishes = Dish.objects.search(query).with_cover()
    page = get_page(dishes, DISHES_PER_PAGE, request.GET.get("before"), request.GET.get("after"))

    context = {"page": page, "query": query, "query_max_length": QUERY_MAX_LENGTH}
    return form_response(request, "uploads/dish_list.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def dish_new(request):
    if request.method != "POST":
        return render(request, "uploads/dish_new.html", {"form": DishForm()})

    form = DishForm(request.POST)
    if form.is_valid():
        with suppress(IntegrityError), transaction.atomic():
            return redirect(form.save())
        form = DishForm(request.POST)  # An equal post was faster. Now the form sees its dish.

    return render(request, "uploads/dish_new.html", {"form": form})


@require_safe
def dish_detail(request, pk):
    return dish_response(request, get_object_or_404(Dish, pk=pk))


@require_http_methods(["GET", "HEAD", "POST"])
def take_back(request, pk):
    """Ask a diner whether to take back a picture of their own, and delete it after a POST."""
    picture = get_own_picture(request, pk)

    if request.method == "POST":
        picture.delete()
        return redirect("dish_detail", picture.dish_id)  # picture.dish may be gone, too

    return render(request, "uploads/take_back.html", {"picture": picture})


@require_POST
def edit_caption(request, pk):
    """Replace the caption of a diner's own picture."""
    picture = get_own_picture(request, pk)
    try:
        caption = CaptionField().clean(request.POST.get("caption"))
    except ValidationError as error:
        return error_response(refusals.get_refusal(error))

    picture.write_caption(caption)
    return HttpResponse(status=HTTPStatus.NO_CONTENT)


@require_http_methods(["GET", "HEAD", "POST"])
def report(request, pk):
    """Ask a diner why they report a picture, and keep the report after a POST."""
    pictures = Picture.objects.shown()
    form = ReportForm(request.POST if request.method == "POST" else None)
    if form.is_valid():
        with transaction.atomic():
            # The lock keeps the picture from being deleted before its report is stored.
            picture = get_object_or_404(pictures.select_for_update(), pk=pk)
            picture.report(get_diner(request), form.cleaned_data["reason"])
        return redirect(f"{reverse('dish_detail', args=[picture.dish_id])}?reported")

    picture = get_object_or_404(pictures, pk=pk)
    return render(request, "uploads/report.html", {"form": form, "picture": picture})


def get_own_picture(request, pk):
    return get_object_or_404(Picture.objects.owned_by(*get_diners(request)), pk=pk)


# The CSRF check reads the form, which is the whole body. It runs in receive(), so that upload() can
# answer the errors that reading raises.
@csrf_exempt
@require_POST
@IN_FLIGHT.track_inprogress()
def upload(request):
    """Store the photos of a form, and answer which were stored and which were refused."""
    try:
        validate_before_reading(request)
        validate_diners(get_diners(request))
        close_database()  # The body may take minutes.
        return receive(request)
    except Exception as error:  # noqa: BLE001
        return finish(request, refused=[refusals.get_refusal(error)])


@csrf_protect
def receive(request):
    fields, files = request.POST, request.FILES  # parsed by the CSRF check, or here
    form = UploadForm(fields, files, refused=get_refused_files(request))
    if not form.is_valid():
        return finish(request, form.cleaned_data.get("id"), refused=[form.get_first_refusal()])

    validate_diners(get_diners(request))  # A ban may have come while the body arrived.
    progress_id = get_progress_id(request) or ""
    fields = {"diner": get_diner(request), "progress_id": progress_id}
    stored, refused = form.save(body_of(request).network, **fields)
    return finish(request, form.cleaned_data["id"], stored, refused)


def csrf_failure(request, reason=""):
    refusal = refusals.get_csrf_refusal(request, reason)
    if request.path != reverse("upload"):
        return refused_response(request, refusal)

    return finish(request, refused=[refusal])


def bad_request(request, exception):
    """Answer a request that Django refuses, for its Host header or for its form."""
    if request.path != reverse("upload"):
        end_upload(request)  # Any form may have sent files.
        return defaults.bad_request(request, exception)

    return finish(request, refused=[refusals.BAD_HOST])


def not_found(request, exception):
    """Answer without reading the form, which may be malformed; Django's own view would read it."""
    return render(request, "404.html", status=HTTPStatus.NOT_FOUND)


def server_error(request):
    """Answer an exception that no view has caught; tell if trying again may help."""
    error = sys.exc_info()[1]
    if refusals.is_out_of_space(error):
        return refused_response(request, refusals.NOTHING_SAVED)
    if refusals.is_unavailable(error):
        return refused_response(request, refusals.UNAVAILABLE)

    return defaults.server_error(request)


def finish(request, dish=None, stored=(), refused=()):
    """End an upload, log it, and return its response."""
    if not stored:  # A poll can show the sentence while the rest of the body is read.
        progress_of(request).refuse(refused[0])
    end_upload(request)
    log_upload(request, dish, stored, refused)
    return upload_response(request, dish, stored, refused)


@require_POST
def cancel_upload(request):
    """Delete what these uploads have stored, and let them store nothing later."""
    diner = get_diner(request)
    if not diner:
        return error_response(refusals.NO_COOKIE)
    try:
        progress_ids = get_cancelled_ids(request)
    except ValidationError as error:
        return error_response(refusals.get_refusal(error))

    Picture.objects.cancel(diner, progress_ids)
    return HttpResponse(status=HTTPStatus.NO_CONTENT)


@never_cache
@require_GET
def get_upload_progress(request):
    """Answer with the record of an upload, or with null if there is none."""
    try:
        progress_id = get_progress_id(request)
    except ValidationError:
        progress_id = None
    if progress_id is None:
        return error_response(refusals.BAD_PROGRESS_ID)

    record = get_record(request, progress_id)
    return HttpResponse(record or "null", content_type="application/json")


@require_safe
def media(request, name):
    """Serve a rendition from whatever stores it, for development."""
    try:
        return FileResponse(default_storage.open(name), content_type="image/jpeg")
    except FileNotFoundError as error:
        raise Http404 from error


@never_cache
@require_safe
def healthz(request):
    """Answer with the health of what the app depends on; 503 if a part of it is not well."""
    health = get_health(host_only="host" in request.GET)
    is_well = set(health.values()) == {"ok"}
    return JsonResponse(health, status=HTTPStatus.OK if is_well else HTTPStatus.SERVICE_UNAVAILABLE)
