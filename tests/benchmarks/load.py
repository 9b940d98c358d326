"""The clients of the benchmarks: they cost little, as they share the cores with the servers.

Each function runs in a process of its own, and what it returns comes back as JSON:

    python -m tests.benchmarks.load FUNCTION ADDRESS ARGUMENT SECONDS
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPResponse
from pathlib import Path

from tests.client import FORM_END, encode_form, open_socket, upload_head
from tests.servers import ADDRESS, ROOT

CLIENTS = 8
OWN_LENGTH = 16  # the bytes of a photo that are its own: a dish keeps the same photo only once
PAUSE = 0.01  # seconds, between two polls of the one that measures how long they take


def start(function, address, argument, seconds):
    """Start one of the functions below."""
    command = [sys.executable, "-m", __name__, function.__name__, address, argument, str(seconds)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)


def result(process):
    """Wait for the end of a function that was started, and return what it returned."""
    output, _ = process.communicate()
    assert process.returncode == 0, f"{process.args} failed."
    return json.loads(output)


def body_start(content):
    """Return the part of a body that all uploads of a photo share, for the first dish of a site."""
    return encode_form(id=1, picture=content).removesuffix(FORM_END)


def body_end():
    """Return a photo's own bytes, which differ each time, and the end of the body."""
    return os.urandom(OWN_LENGTH) + FORM_END


def connect(address):
    """Connect to host:port or unix:path, without a timeout: sendfile() would not wait."""
    return open_socket(address, timeout=None)


def uploads(address, body, seconds):
    """Send a file and an end as the body of uploads, one after the other on each connection.

    Return how many were stored, and how many in a second.
    """
    deadline = time.perf_counter() + seconds
    with ThreadPoolExecutor(CLIENTS) as pool:
        jobs = [
            pool.submit(upload_until, deadline, address, body, f"client-{number}")
            for number in range(CLIENTS)
        ]
    results = [job.result() for job in jobs]
    # The sum of each one's own rate: at the end the faster ones wait for the slowest.
    return sum(count for count, _ in results), sum(count / time for count, time in results)


def upload_until(deadline, address, body, name):
    """Return how many uploads there were, and how many seconds they took."""
    count, started = 0, time.perf_counter()
    with connect(address) as client, Path(body).open("rb") as file:
        shared = os.fstat(file.fileno()).st_size
        while time.perf_counter() < deadline:
            end = body_end()
            head = upload_head(ADDRESS, shared + len(end), f"{name}-{count}", id=1)
            client.sendall(head, socket.MSG_MORE)
            send_file(client, file, shared)
            client.sendall(end)
            answer = HTTPResponse(client)
            answer.begin()
            assert answer.status == 200, (answer.status, answer.read())
            answer.read()
            count += 1
    return count, time.perf_counter() - started


def send_file(client, file, length):
    sent = 0
    while sent < length:
        sent += os.sendfile(client.fileno(), file.fileno(), sent, length - sent)


def polls(address, path, seconds):
    """Return how many polls in a second are answered with a record on all the connections."""
    poller = Poller(address, get_request(path))
    for _ in range(CLIENTS):
        poller.connect()
    started = time.perf_counter()
    while time.perf_counter() < started + seconds:
        poller.read()
    return poller.count / (time.perf_counter() - started)


class Poller:
    """Connections that ask the same again and again."""

    def __init__(self, address, request):
        self.address = address
        self.request = request
        self.epoll = select.epoll()
        self.clients, self.answers = {}, {}  # by descriptor
        self.count = 0  # of whole answers

    def connect(self):
        client = connect(self.address)
        self.clients[client.fileno()] = client
        self.epoll.register(client, select.EPOLLIN)
        self.send(client.fileno())

    def send(self, descriptor):
        self.answers[descriptor] = b""
        os.write(descriptor, self.request)

    def read(self):
        """Wait for data, and ask again on each connection whose answer is whole."""
        for descriptor, _ in self.epoll.poll():
            answer = self.answers[descriptor] + received(os.read(descriptor, 2**16))
            self.answers[descriptor] = answer
            if is_record(answer):
                self.count += 1
                if b"\r\nConnection: close\r\n" in answer:  # nginx, after a thousand
                    self.clients.pop(descriptor).close()
                    self.connect()
                else:
                    self.send(descriptor)


def latencies(address, path, seconds):
    """Return how long each poll of a single client takes, in seconds."""
    request = get_request(path)
    durations = []
    deadline = time.perf_counter() + seconds
    with connect(address) as client:
        while (started := time.perf_counter()) < deadline:
            client.sendall(request)
            answer = b""
            while not is_record(answer):
                answer += received(client.recv(2**16))
            durations.append(time.perf_counter() - started)
            time.sleep(PAUSE)
    return durations


def get_request(path):
    return f"GET {path} HTTP/1.1\r\nHost: {ADDRESS}\r\n\r\n".encode()


def received(data):
    assert data, "The server closed the connection."
    return data


def is_record(answer):
    """Tell whether an answer is whole, and has a record; raise where it is none."""
    assert b"HTTP/1.1 200 ".startswith(answer[:13]), answer
    return answer.endswith(b"}") and b'"uploaded"' in answer


def main():
    name, address, argument, seconds = sys.argv[1:]
    functions = {function.__name__: function for function in (uploads, polls, latencies)}
    signal.alarm(int(float(seconds)) + 60)  # ends the process, and by it what hangs
    json.dump(functions[name](address, argument, float(seconds)), sys.stdout)


if __name__ == "__main__":
    main()
