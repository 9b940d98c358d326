#!/usr/bin/env python3
"""Request a page ten times a second, and begin a slow upload every two: watch.py HOST FOLDER.

At its end it prints a table of the answers during each step in the folder.
"""

import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TOKEN = "tokentokentokentokentokentokento"
PAUSE = 0.1
PAUSES_PER_UPLOAD = 20
PHOTO = Path(__file__).parents[2] / ".readme/dialog.png"
UPLOAD = ("--limit-rate", "5k", "--form", "id=1", "--form", f"picture=@{PHOTO}")


def main(host, folder):
    folder, pages, uploads = Path(folder), [], []
    curl = ["curl", "--silent", "--output", "/dev/null", "--max-time", "100"]
    curl += ["--cacert", folder / "certificate.pem"]
    curl += ["--write-out", "%{http_code} %{time_total}", "--cookie", f"__Host-csrftoken={TOKEN}"]
    curl += ["--header", f"Origin: https://{host}", "--header", f"X-CSRFToken: {TOKEN}"]
    curl += ["--header", "Accept: application/xml"]

    def request(answers, path, *options):
        began = time.time()
        address = (folder / "address").read_text().strip()
        to_address = ("--resolve", f"{host}:443:{address}")
        command = [*curl, *to_address, *options, f"https://{host}{path}"]
        result = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
        status, seconds = result.stdout.split()
        answers.append((began, status, float(seconds)))

    with ThreadPoolExecutor(100) as pool:
        try:
            for number in range(10**9):
                pool.submit(request, pages, "/")
                if number % PAUSES_PER_UPLOAD == 0:
                    pool.submit(request, uploads, "/upload", *UPLOAD)
                time.sleep(PAUSE)
        except KeyboardInterrupt:
            pass
    print_table((folder / "steps.tsv").read_text().splitlines(), pages, uploads)


def print_table(steps, pages, uploads):
    print("\n| step | seconds | pages | not 200 | longest wait | slow uploads | not 200 |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for step in steps:
        name, began, ended = step.split("\t")
        began, ended = float(began), float(ended)
        seen, sent = (
            [answer for answer in answers if began <= answer[0] < ended]
            for answers in (pages, uploads)
        )
        longest = max((seconds for _, _, seconds in seen), default=0)
        cells = [name, f"{ended - began:.0f}", len(seen), count_failures(seen), f"{longest:.2f} s"]
        print("|", " | ".join(map(str, [*cells, len(sent), count_failures(sent)])), "|")


def count_failures(answers):
    """Return how many answers were not 200, and of which kind: curl says 000 where none came."""
    kinds = Counter(status for _, status, _ in answers if status != "200")
    return ", ".join(f"{count} ({status})" for status, count in sorted(kinds.items())) or "0"


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    main(*sys.argv[1:])
