"""The rows of a large site, which the database makes itself."""

from django.core.management import call_command
from django.db import connection

MAX_OF_ONE = 100_000  # pictures of one dish

NOUNS = ("soup", "tart", "salad", "stew", "curry", "pie", "noodles", "risotto", "burger", "taco")
SIDES = ("fennel", "lemon", "chicken", "saffron", "walnuts", "truffle", "octopus", "ginger", "dill")
NUMBERS = {
    "postgresql": "SELECT generate_series(1, {})",
    "sqlite": "SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {}",
}
# The first dish, the oldest, is the one with a rare name.
DISHES = """
    INSERT INTO uploads_dish (name, restaurant, created, search_text)
    WITH RECURSIVE numbers(n) AS ({numbers}), nouns(i, noun) AS (VALUES {nouns}),
    sides(i, side) AS (VALUES {sides}), names(n, name) AS (
        SELECT n, CASE WHEN n = 1 THEN 'bouillabaisse' ELSE noun || ' with ' || side || ' ' || n END
        FROM numbers JOIN nouns ON nouns.i = n % {noun_count}
        JOIN sides ON sides.i = n % {side_count}
    )
    SELECT name, 'Chez ' || (n % 5003), '2026-01-01', name || ' chez ' || (n % 5003)
    FROM names ORDER BY n
"""
PICTURES = """
    INSERT INTO uploads_picture (dish_id, original, display, thumbnail, width, height, uploaded,
    hidden, digest, diner, caption, progress_id)
    WITH RECURSIVE numbers(n) AS ({numbers})
    SELECT CASE WHEN n % {every} = 0 THEN {dishes} / 2 ELSE n % {dishes} + 1 END,
    md5('o' || n) || '.jpg', md5('r' || n) || '-1600.jpg', md5('r' || n) || '-480.jpg', 4000, 3000,
    '2026-01-01', n % 100 = 7, md5('a' || n) || md5('b' || n), md5('d' || (n % {dishes})),
    CASE WHEN n % 10 = 0 THEN 'With aioli ' || n ELSE '' END, md5('p' || n)
    FROM numbers ORDER BY n
"""
REPORTS = """
    INSERT INTO uploads_report (picture_id, reason, diner, created)
    SELECT id, 'Not food', diner, uploaded FROM uploads_picture WHERE id % 10 = 3
"""
BANS = """
    INSERT INTO uploads_ban (diner, created)
    SELECT DISTINCT diner, uploaded FROM uploads_picture WHERE id <= {dishes} AND id % 100 = 3
"""


def fill(dishes, pictures):
    """Fill a new database. Make most of its indexes afterwards, which takes less time."""
    call_command("migrate", "uploads", "0004", verbosity=0)
    numbers = NUMBERS[connection.vendor]
    values = {
        "dishes": dishes,
        "every": max(10, pictures // MAX_OF_ONE),
        "nouns": list_values(NOUNS),
        "noun_count": len(NOUNS),
        "sides": list_values(SIDES),
        "side_count": len(SIDES),
    }
    with connection.cursor() as cursor:
        cursor.execute(DISHES.format(numbers=numbers.format(dishes), **values))
        cursor.execute(PICTURES.format(numbers=numbers.format(pictures), **values))
        cursor.execute(REPORTS)
        cursor.execute(BANS.format(**values))
    call_command("migrate", verbosity=0)
    if connection.vendor == "postgresql":  # as autovacuum does
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")


def list_values(words):
    return ", ".join(f"({number}, '{word}')" for number, word in enumerate(words))
