"""The least that a server in Python can do: read the head, and write the body, form and all, to a
file. Two processes, and a thread for each connection.

    python -m tests.benchmarks.peers.bare HOST PORT
"""

import multiprocessing
import os
import re
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from threading import Thread

STORE = Path(os.environ["STORE"])
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HEAD = re.compile(rb"X-Progress-ID=(\S+).*?\r\nContent-Length: (\d+)\r\n.*?\r\n\r\n", re.DOTALL)


def serve_connection(connection):
    buffer = memoryview(bytearray(2**18))
    with connection, suppress(ConnectionError):
        while count := connection.recv_into(buffer):
            while not (head := HEAD.search(buffer[:count])):
                count += connection.recv_into(buffer[count:])
            store(connection, buffer, head, count)
            connection.sendall(ANSWER)


def store(connection, buffer, head, count):
    """Write the body to a file; the buffer holds so many bytes of the head and the body."""
    name, length = head[1].decode(), int(head[2])
    file = os.open(STORE / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    length -= os.write(file, buffer[head.end() : count])
    while length:
        if not (count := connection.recv_into(buffer)):
            raise ConnectionError("The upload broke off.")
        length -= os.write(file, buffer[:count])
    os.close(file)


def serve(server):
    while True:
        connection, _ = server.accept()
        Thread(target=serve_connection, args=[connection], daemon=True).start()


def main():
    host, port = sys.argv[1:]
    server = socket.create_server((host, int(port)), backlog=100)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    multiprocessing.Process(target=serve, args=[server], daemon=True).start()
    serve(server)


if __name__ == "__main__":
    main()
