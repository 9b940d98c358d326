from pathlib import Path

from django.test import SimpleTestCase

from .processes import processes_of
from .servers import PostgreSQL, requires


@requires("postgres")
class PostgreSQLTests(SimpleTestCase):
    def test_a_database_is_copied_and_outlives_the_server(self):
        with PostgreSQL() as server:
            server.create_database("menu")
            server.execute("CREATE TABLE dish AS SELECT 'Bouillabaisse'", "menu")
            server.create_database("copy", template="menu")
            server.stop()
            self.assertFalse(server.listens())

            server.start()

            for name in ("menu", "copy"):
                self.assertEqual(server.execute("TABLE dish", name), [("Bouillabaisse",)])

    def test_nothing_of_it_is_left(self):
        with PostgreSQL() as server:
            folder = Path(server.folder)
            self.assertTrue(folder.exists())

        self.assertFalse(server.listens())
        self.assertEqual(processes_of(server.process.pid), [])
        self.assertFalse(folder.exists())
