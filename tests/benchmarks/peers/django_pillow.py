"""Plain Django that makes both renditions with Pillow, with the options of Gourmious."""

import os

from django.core.files.storage import default_storage
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path
from PIL import Image, ImageOps

from .django_settings import configure

configure(__name__, MEDIA_ROOT=os.environ["STORE"])


def upload(request):
    name = default_storage.save(request.GET["X-Progress-ID"], request.FILES["picture"])
    with Image.open(default_storage.path(name)) as original:
        image = ImageOps.exif_transpose(original)
    for side in (1600, 480):
        image.thumbnail((side, side))
        rendition = f"{os.environ['MEDIA']}/{name}-{side}.jpg"
        image.save(rendition, quality=82, progressive=True)
    return HttpResponse("ok")


urlpatterns = [path("upload", upload)]
application = get_wsgi_application()
