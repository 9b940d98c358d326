"""Django with nothing but its default settings."""

import os

from django.core.files.storage import default_storage
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

from .django_settings import configure

configure(__name__, MEDIA_ROOT=os.environ["STORE"])


def upload(request):
    default_storage.save(request.GET["X-Progress-ID"], request.FILES["picture"])
    return HttpResponse("ok")


urlpatterns = [path("upload", upload)]
application = get_wsgi_application()
