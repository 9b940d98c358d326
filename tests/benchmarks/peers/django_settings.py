"""The settings that all the peers in Django have."""

from django.conf import settings


def configure(module, **own):
    settings.configure(ALLOWED_HOSTS=["*"], SECRET_KEY="a benchmark's", ROOT_URLCONF=module, **own)
