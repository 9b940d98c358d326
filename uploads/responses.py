"""The XML answer to an upload, the pages that hold the form, and the cookie of a diner."""

import secrets
from http import HTTPStatus
from xml.etree import ElementTree

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import dateformat

from gourmious.cookies import get_cookie_name

from .forms import UploadForm
from .paging import IndexPaginator
from .progress import MAX_CANCELLED

PICTURES_PER_PAGE = 24


def upload_response(request, dish, stored, refused):
    """Return an answer that says which files were stored and which were refused.

    `stored` has pairs of a picture and whether it is new. A browser without scripts gets a page.
    """
    status = HTTPStatus.OK if stored else refused[0].status
    if request.get_preferred_type(["application/xml", "text/html"]) != "text/html":
        return xml_response(stored, refused, get_diners(request), status)

    if dish is None:
        context = {"title": "Not uploaded", "refusals": refused}
        return render(request, "uploads/refused.html", context, status=status)

    return dish_response(request, dish, refused, status) if refused else redirect(dish)


def xml_response(stored, refused, diners, status):
    upload = ElementTree.Element("upload")
    outcome = ElementTree.SubElement(upload, "status")
    outcome.text = ("partial" if refused else "ok") if stored else "error"
    for picture, created in stored:
        ElementTree.SubElement(upload, "picture", picture_attributes(picture, created, diners))
    for refusal in refused:
        error = ElementTree.SubElement(upload, "error", error_attributes(refusal))
        error.text = refusal.message
    content = ElementTree.tostring(upload, "utf-8")
    return HttpResponse(content, content_type="application/xml", status=status)


def picture_attributes(picture, created, diners):
    width, height = picture.thumbnail_size
    attributes = {
        "id": str(picture.pk),
        "url": picture.display.url,
        "thumbnail": picture.thumbnail.url,
        "srcset": picture.srcset,
        "width": str(width),
        "height": str(height),
        "datetime": dateformat.format(picture.uploaded, "Y-m-d"),
        "date": dateformat.format(picture.uploaded, "j M Y"),
    }
    if picture.caption:
        attributes["caption"] = picture.caption
    if picture.is_owned_by(*diners):
        attributes["take_back"] = reverse("take_back", args=[picture.pk])
        attributes["edit_caption"] = reverse("edit_caption", args=[picture.pk])
    else:
        attributes["report"] = reverse("report", args=[picture.pk])
    if not created:
        attributes["known"] = "true"
    return attributes


def error_attributes(refusal):
    attributes = {"code": refusal.code}
    if refusal.file:
        attributes["file"] = refusal.file
    if refusal.retry:
        attributes["retry"] = "true"
    return attributes


def error_response(refusal):
    return JsonResponse({"error": refusal.message}, status=refusal.status)


def refused_response(request, refusal):
    """Return the refusal of a form that is no upload: a page, or JSON for a script."""
    if request.get_preferred_type(["application/json", "text/html"]) != "text/html":
        return error_response(refusal)

    context = {"title": "Not accepted", "refusals": [refusal]}
    return render(request, "uploads/refused.html", context, status=refusal.status)


def dish_response(request, dish, refused=(), status=HTTPStatus.OK):
    pictures = dish.pictures.shown()
    page = IndexPaginator(pictures, PICTURES_PER_PAGE).get_page(request.GET.get("page"))

    context = {
        "dish": dish,
        "page": page,
        "refusals": refused,
        "reported": "reported" in request.GET,
        "diners": get_diners(request),
    }
    return form_response(request, "uploads/dish_detail.html", context, status)


def form_response(request, template, context, status=HTTPStatus.OK):
    """Return a page that holds the form, and set the cookie of its browser."""
    form = {
        "form": UploadForm(auto_id="%s"),
        "poll_interval": settings.PROGRESS_POLL_INTERVAL,
        "csrf_cookie": get_cookie_name(request, settings.CSRF_COOKIE_NAME),
        "max_cancelled": MAX_CANCELLED,
    }
    response = render(request, template, {**context, **form}, status=status)
    set_diner(request, response)
    return response


def get_diner(request):
    """Return the random id of this browser, or "" if it has seen no form yet."""
    return request.get_signed_cookie("diner", default="")


def get_diners(request):
    """Return the ids of this browser: its present one, and the one of an old cookie.

    A sibling subdomain can plant an old cookie. At worst it bans the browser, or lets it take back
    the pictures of another. New pictures belong to the present id.
    """
    old = HttpRequest()
    old.COOKIES = request.old_cookies
    return [get_diner(request), get_diner(old)]


def set_diner(request, response):
    """Set the cookie with a page: the first uploads run in parallel, and each would set another.

    The cookie is signed. A session would cost a row for each visitor.
    """
    if not get_diner(request):
        response.set_signed_cookie(
            "diner",
            secrets.token_hex(16),
            max_age=365 * 24 * 3600,
            httponly=True,
            samesite="Lax",
        )
