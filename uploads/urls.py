from django.urls import path

from . import views

urlpatterns = [
    path("", views.dish_list, name="dish_list"),
    path("dishes/new", views.dish_new, name="dish_new"),
    path("dishes/<int:pk>/", views.dish_detail, name="dish_detail"),
    path("pictures/<int:pk>/take_back", views.take_back, name="take_back"),
    path("pictures/<int:pk>/caption", views.edit_caption, name="edit_caption"),
    path("pictures/<int:pk>/report", views.report, name="report"),
    path("upload", views.upload, name="upload"),
    path("cancel_upload", views.cancel_upload, name="cancel_upload"),
    path("get_upload_progress", views.get_upload_progress, name="get_upload_progress"),
    path("healthz", views.healthz, name="healthz"),
]
