"""The URLs of the app, but for an upload that stores the file and does no more."""

import secrets

from django.http import HttpResponse
from django.urls import include, path
from django.views.decorators.csrf import csrf_exempt

from uploads.storage import OriginalStorage


@csrf_exempt
def upload(request):
    OriginalStorage().save(f"{secrets.token_hex(16)}.jpg", request.FILES["picture"])
    return HttpResponse("ok")


urlpatterns = [
    path("upload", upload, name="upload"),
    path("", include("gourmious.urls")),
]
