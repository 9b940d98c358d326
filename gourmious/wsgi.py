import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from granian.utils.proxies import wrap_wsgi_with_proxy_headers

from .request import Request

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gourmious.settings")

django_application = get_wsgi_application()
django_application.request_class = Request

# Behind nginx every connection comes from nginx. X-Forwarded-For has the client's address, which is
# half of a progress record's key. Anybody can send that header: it is trusted only from proxies.
behind_proxy = wrap_wsgi_with_proxy_headers(
    django_application, trusted_hosts=settings.TRUSTED_PROXIES
)


def application(environ, start_response):
    # A connection to the Unix socket has no address. It comes from nginx, on this machine.
    environ["REMOTE_ADDR"] = environ["REMOTE_ADDR"] or "127.0.0.1"
    return behind_proxy(environ, start_response)
