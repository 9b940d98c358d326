import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from granian.utils.proxies import wrap_wsgi_with_proxy_headers

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gourmious.settings")

# Behind nginx every connection comes from nginx. The client's address, half of a progress record's
# key, is in X-Forwarded-For; anybody can send that header, so these peers alone are believed.
application = wrap_wsgi_with_proxy_headers(
    get_wsgi_application(), trusted_hosts=settings.TRUSTED_PROXIES
)
