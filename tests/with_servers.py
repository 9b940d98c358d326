"""Run the tests of rows and files once more, with PostgreSQL and S3.

    python -m tests.with_servers [LABEL …]

The labels are those of `manage.py test`; without any, all modules below run.
"""

import os
import subprocess
import sys

from .servers import ROOT, PostgreSQL, SeaweedFS

# The modules that write rows or store photos: in Django's test client, or through all servers.
MODULES = (
    "admin",
    "commands",
    "forms",
    "health",
    "indexes",
    "models",
    "stack",
    "views",
)


def main():
    labels = sys.argv[1:] or [f"tests.test_{name}" for name in MODULES]
    with PostgreSQL(max_connections=300) as server, SeaweedFS() as store:
        url = server.create_database("gourmious")
        command = [sys.executable, "manage.py", "test", *labels]
        files = store.make_buckets("gourmious")
        environment = {**os.environ, "GOURMIOUS_DATABASE_URL": url, **files}
        done = subprocess.run(command, check=False, cwd=ROOT, env=environment)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
