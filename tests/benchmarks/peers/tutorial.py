"""Laurent Luce's tutorial, with the handler of Django snippet 678, as both were published.

Each chunk gets the record from memcached, and sets it again; the view copies the file.
"""

import os
from pathlib import Path

from django.conf import global_settings
from django.core.cache import cache
from django.core.files.uploadhandler import FileUploadHandler
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

from .django_settings import configure

STORE = Path(os.environ["STORE"])

configure(
    __name__,
    CACHES={
        "default": {
            "BACKEND": "django.core.cache.backends.memcached.PyMemcacheCache",
            "LOCATION": os.environ["MEMCACHED"],
        },
    },
    FILE_UPLOAD_HANDLERS=[
        f"{__name__}.UploadProgressCachedHandler",
        *global_settings.FILE_UPLOAD_HANDLERS,
    ],
)


class UploadProgressCachedHandler(FileUploadHandler):
    def handle_raw_input(self, input_data, META, content_length, boundary, encoding=None):
        self.cache_key = f"{META['REMOTE_ADDR']}_{self.request.GET['X-Progress-ID']}"
        cache.set(self.cache_key, {"length": content_length, "uploaded": 0})

    def receive_data_chunk(self, raw_data, start):
        record = cache.get(self.cache_key)
        record["uploaded"] += self.chunk_size
        cache.set(self.cache_key, record)
        return raw_data

    def file_complete(self, file_size):
        pass

    def upload_complete(self):
        cache.delete(self.cache_key)


def upload(request):
    with (STORE / request.GET["X-Progress-ID"]).open("wb+") as destination:
        for chunk in request.FILES["picture"].chunks():
            destination.write(chunk)
    return HttpResponse("ok")


urlpatterns = [path("upload", upload)]
application = get_wsgi_application()
