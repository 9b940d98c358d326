from django.conf import settings
from django.contrib import admin
from django.urls import include, path

from uploads.views import media

urlpatterns = [
    path("", include("uploads.urls")),
    path("admin/", admin.site.urls),
]
if settings.DEBUG:  # In production nginx serves the renditions.
    urlpatterns.append(path("media/<name>", media))

handler400 = "uploads.views.bad_request"
handler404 = "uploads.views.not_found"
handler500 = "uploads.views.server_error"
