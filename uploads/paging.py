"""Pages of long lists, newest first."""

from django.core.paginator import Paginator


class IndexPaginator(Paginator):
    """Numbered pages of rows whose ids are in an index. Only the index is counted and skipped."""

    def _get_page(self, rows, *args):
        found = self.object_list.model.objects.filter(pk__in=rows.values("pk"))
        return super()._get_page(found, *args)


class Page:
    """A page that is found by the primary key. A count or an offset would read all rows before it.

    `newer` is the id that the next newer page follows, or None if this is the first page. `older`
    is the id that the next older page follows, or None if this is the last page.
    """

    def __init__(self, rows, has_newer, has_older):
        self.object_list = rows
        self.newer = rows[0].pk if has_newer else None
        self.older = rows[-1].pk if has_older else None

    def __iter__(self):
        return iter(self.object_list)


def get_page(rows, size, before=None, after=None):
    """Return the page of the rows that are older than the id `before`, or newer than `after`.

    It is the first page if there is no such id, if nothing is older, or if no more than a page is
    newer.
    """
    rows = rows.order_by("-pk")
    before, after = parse_id(before), parse_id(after)
    if before is not None:
        older, has_more = fetch(rows.filter(pk__lt=before), size)
        if older:
            return Page(older, True, has_more)
    elif after is not None:
        newer, has_more = fetch(rows.filter(pk__gt=after).reverse(), size)
        if has_more:
            return Page(newer[::-1], True, True)

    newest, has_more = fetch(rows, size)
    return Page(newest, False, has_more)


def fetch(rows, size):
    """Return the first rows, as many as a page has, and whether there are more."""
    found = list(rows[: size + 1])
    return found[:size], len(found) > size


def parse_id(text):
    """Return an id of a query string, or None if there is none or it is malformed."""
    try:
        return int(text or "")
    except ValueError:
        return None
