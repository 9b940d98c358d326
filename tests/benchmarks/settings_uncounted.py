"""The same without the handler that counts."""

from .settings import *  # noqa: F403
from .settings import FILE_UPLOAD_HANDLERS

FILE_UPLOAD_HANDLERS = [name for name in FILE_UPLOAD_HANDLERS if "Progress" not in name]
