from django.apps import AppConfig
from django.http import multipartparser


class UploadsConfig(AppConfig):
    name = "uploads"

    def ready(self):
        from . import checks, loginlog  # noqa: F401, PLC0415
        from .multipart import MAX_HEADER_SIZE, parse_part  # noqa: PLC0415

        # Private in Django (5.2): after an upgrade, check that its Parser still uses both.
        multipartparser.MAX_TOTAL_HEADER_SIZE = MAX_HEADER_SIZE
        multipartparser.parse_boundary_stream = parse_part
