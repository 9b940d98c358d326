from http.cookies import SimpleCookie

# A browser takes a cookie with this prefix only from the host itself, and only over HTTPS (RFC
# 6265bis, section 4.1.3.2): a sibling subdomain cannot plant one.
PREFIX = "__Host-"


class HostCookieMiddleware:
    """Give all cookies the prefix __Host- over HTTPS, and ignore those without it.

    The rest of the app uses the names without the prefix. They are also the browser's names over
    plain HTTP, where it drops cookies with the prefix. `request.old_cookies` has the cookies that a
    browser may have kept from an older release.
    """

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        request.old_cookies = {}
        if not request.is_secure():
            return self.get_response(request)

        request.old_cookies = request.COOKIES
        request.COOKIES = {
            name.removeprefix(PREFIX): value
            for name, value in request.COOKIES.items()
            if name.startswith(PREFIX)
        }
        response = self.get_response(request)
        response.cookies = add_prefix(response.cookies)
        return response


def add_prefix(cookies):
    prefixed = SimpleCookie()
    for cookie in cookies.values():
        cookie.set(PREFIX + cookie.key, cookie.value, cookie.coded_value)
        cookie["secure"] = True
        prefixed[cookie.key] = cookie
    return prefixed


def get_cookie_name(request, name):
    """Return the name of a cookie in the browser, where scripts read it."""
    return PREFIX + name if request.is_secure() else name
