"""Whether a page takes longer on a large site: a million dishes beside a thousand.

There are five pictures for a dish on PostgreSQL, and one on SQLite; one dish has 100,000. Each page
is requested through Django, and its queries are then repeated and timed alone.

    python -m tests.benchmarks.lists

It takes ten minutes, and 6 GB below TMPDIR and /tmp.
"""

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gourmious.settings")
django.setup()

from django.contrib.auth.models import User  # noqa: E402
from django.db import connection, connections  # noqa: E402
from django.test import Client, override_settings  # noqa: E402

from gourmious.postgresql.url import read_url  # noqa: E402
from tests.servers import PostgreSQL  # noqa: E402
from uploads.models import Picture  # noqa: E402

from .rounds import measure_in_turns, print_table  # noqa: E402
from .rows import fill  # noqa: E402

ROUNDS = 5
AIM = 30  # ms in the database, for a page of diners
SMALL, LARGE = 1000, 10**6  # dishes
PICTURES = {"PostgreSQL": 5, "SQLite": 1}  # for a dish


@dataclass
class Site:
    database: dict
    dishes: int

    def open(self):
        """Let Django use this site's database from now on."""
        with suppress(AttributeError):
            connections["default"].close()
            del connections["default"]
        connections.settings.update(connections.configure_settings({"default": self.database}))

    def get(self, path):
        """Request a page; its path may name a place among the dishes."""
        places = {"tenth": self.dishes - 107, "recent": self.dishes - 5, "large": self.dishes // 2}
        response = self.client.get(path.format(**places))
        assert response.status_code == 200, path

    def prepare(self, pictures):
        self.open()
        fill(self.dishes, pictures)
        self.log_in()

    def log_in(self):
        self.client = Client()
        self.client.force_login(User.objects.create_superuser("cook"))


class Recorder:
    """Notes the queries that are executed."""

    def __init__(self):
        self.queries = []

    def __call__(self, execute, sql, params, many, context):
        self.queries.append((sql, params))
        return execute(sql, params, many, context)


def page(path):
    return lambda site: site.get(path)


def find_twin(site):
    newest = Picture.objects.first()
    assert Picture.objects.filter(dish=newest.dish_id, digest=newest.digest).first() == newest


def find_own(site):
    newest = Picture.objects.first()
    assert Picture.objects.owned_by(newest.diner).get(pk=newest.pk) == newest


def find_files(site):
    names = list(Picture.objects.values_list("original", flat=True)[:1000])
    assert Picture.objects.filter(original__in=names).count() == len(names)


LOOKUPS = {
    "twin look-up": find_twin,
    "take back": find_own,
    "prune: 1,000 names": find_files,
}
DINERS = {
    "list, first page": page("/"),
    "list, tenth page": page("/?before={tenth}"),
    "list, last page": page("/?before=8"),
    "dish": page("/dishes/{recent}/"),
    "dish of most photos": page("/dishes/{large}/"),
    "dish of most photos, last page": page("/dishes/{large}/?page=99999"),
    "search: common word": page("/?q=soup"),
    "search: rare word": page("/?q=bouillabaisse"),
    "search: no match": page("/?q=xylophone"),
    "search: two letters, no match": page("/?q=qx"),
    "search: two common words, no match": page("/?q=soup+tart"),
}
STAFF = {
    "admin: dishes": page("/admin/uploads/dish/"),
    "admin: dishes, common word": page("/admin/uploads/dish/?q=soup"),
    "admin: dishes, no match": page("/admin/uploads/dish/?q=xylophone"),
    "admin: pictures": page("/admin/uploads/picture/"),
    "admin: pictures, hidden": page("/admin/uploads/picture/?hidden__exact=1"),
    "admin: pictures, common word": page("/admin/uploads/picture/?q=soup"),
    "admin: pictures, no match": page("/admin/uploads/picture/?q=xylophone"),
    "admin: reports": page("/admin/uploads/report/"),
    "admin: bans": page("/admin/uploads/ban/"),
}


def measure(site, use):
    """Return the ms that something takes, and those of its queries in the database."""
    site.open()
    use(site)  # The first use opens the connection, and fills caches.
    recorder = Recorder()
    with connection.execute_wrapper(recorder):
        start = time.perf_counter()
        use(site)
        whole = time.perf_counter() - start
    queries = [query for query in recorder.queries if query[0].startswith("SELECT")]
    return whole * 1000, sum(map(time_query, queries)) * 1000


def time_query(query):
    with connection.cursor() as cursor:
        start = time.perf_counter()
        cursor.execute(*query)
        cursor.fetchall()
        return time.perf_counter() - start


def compare(sites):
    """Yield a row for each page: the medians of the large site, and the ratio to the small one."""
    for name, use in {**LOOKUPS, **DINERS, **STAFF}.items():
        runs = measure_in_turns(sites, lambda key, use=use: measure(sites[key], use), ROUNDS)
        whole, large = (median(values) for values in zip(*runs[LARGE], strict=True))
        _, small = (median(values) for values in zip(*runs[SMALL], strict=True))
        mark = "✗ " if name in DINERS and large > AIM else ""
        yield name, f"{mark}{large:.1f}", f"{large / small:.1f}", f"{whole:.0f}"


def print_sites(engine, sites):
    count = f"{LARGE * PICTURES[engine]:,}"
    head = f"{engine}, {LARGE:,} dishes, {count} pictures"
    print_table((head, "ms in the database", f"÷ {SMALL:,} dishes", "ms in all"), compare(sites))
    print(flush=True)


def make_database(engine, name, server, folder):
    if engine == "SQLite":
        return {"ENGINE": "gourmious.sqlite", "NAME": Path(folder) / name}
    return read_url(server.create_database(name))


@override_settings(ALLOWED_HOSTS=["testserver"])
def main():
    with TemporaryDirectory() as folder, PostgreSQL() as server:
        for engine, per_dish in PICTURES.items():
            sites = {}
            for dishes in (SMALL, LARGE):
                database = make_database(engine, f"dishes_{dishes}", server, folder)
                sites[dishes] = Site(database, dishes)
                sites[dishes].prepare(dishes * per_dish)
            print_sites(engine, sites)


if __name__ == "__main__":
    main()
