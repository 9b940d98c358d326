"""A proxy that throttles, answers, swallows, resets or hangs the requests to a path.

    with Proxy(upstream) as proxy, proxy.fault("/upload", answer(502), times=2):
        ...

It is an event loop in one thread: a cancelled task closes its sockets, and a killed process
leaves nothing behind. It needs no process of its own: see SWITCH_INTERVAL.
"""

import asyncio
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from http.client import parse_headers, responses
from io import BytesIO
from math import inf

from .client import RESET_ON_CLOSE, open_socket
from .servers import ADDRESS

PIECE = 4096  # bytes
BURST = 0.1  # seconds; a line that woke up late catches up with so much

# Bytes of SO_RCVBUF. A browser counts bytes as sent that its kernel holds: up to 4 MB on loopback.
# With the small buffer Chromium is 130 KB ahead of a line of 50,000 bytes a second, but the buffer
# passes no more than 700,000 bytes a second.
SMALL_BUFFER, LARGE_BUFFER = 1024, 2**16

# Seconds. Beside a thread that computes all the time, a line of 500,000 bytes a second reaches
# 40 % of its rate with Python's 5 ms, and all of it with this (two cores, 27 November 2026).
SWITCH_INTERVAL = 0.0005


async def wait_until_readable(sock):
    """Wait for bytes, a connection or the end.

    It reads nothing: loop.sock_recv() and sock_accept() lose what they have when cancelled.
    """
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sock, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(sock)


async def sleep_until(moment):
    if (seconds := moment - time.monotonic()) > 0:
        await asyncio.sleep(seconds)


async def cancel(*tasks):
    """Cancel tasks, and wait until they have let go of their sockets."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def race(*coroutines):
    """Run coroutines until one of them ends, and cancel the others."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        done.pop().result()
    finally:
        await cancel(*tasks)


async def first_bytes(pieces, count):
    async for piece in pieces:
        yield piece[:count]
        count -= len(piece)
        if count <= 0:
            return


class Peer:
    """The client or the server, whose HTTP/1.1 is parsed as far as needed: trailers are not.

    Its methods raise EOFError where the connection ends too early.
    """

    def __init__(self, sock):
        sock.setblocking(False)
        self.socket, self.buffer = sock, b""

    def close(self):
        self.socket.close()

    def reset(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.close()

    def limit_buffer(self, limited):
        size = SMALL_BUFFER if limited else LARGE_BUFFER
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)

    def shut_down(self, how):
        with suppress(OSError):  # It may have hung up.
            self.socket.shutdown(how)

    async def send(self, data):
        await asyncio.get_running_loop().sock_sendall(self.socket, data)

    async def fill(self):
        while (data := self.receive()) is None:
            await wait_until_readable(self.socket)
        if not data:
            raise EOFError
        self.buffer += data

    def receive(self):
        """Return the bytes that are there, b"" at the end, or None if there are none yet."""
        try:
            return self.socket.recv(PIECE)
        except BlockingIOError:
            return None

    async def wait_for_end(self):
        while True:
            await self.fill()

    async def read(self, count):
        """Return some bytes, and at most so many."""
        if not self.buffer:
            await self.fill()
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    async def read_until(self, end):
        while end not in self.buffer:
            await self.fill()
        return await self.read(self.buffer.index(end) + len(end))

    async def read_head(self):
        return Head(await self.read_until(b"\r\n\r\n"))

    async def read_to_end(self):
        with suppress(EOFError):
            while True:
                yield await self.read(PIECE)

    async def read_exactly(self, count):
        while count:
            data = await self.read(min(count, PIECE))
            count -= len(data)
            yield data

    async def read_chunks(self):
        """Yield a chunked body as it is, with the sizes of its chunks."""
        size = None
        while size != 0:
            line = await self.read_until(b"\r\n")
            yield line
            size = int(line.split(b";")[0], 16)
            async for data in self.read_exactly(size + len(b"\r\n")):
                yield data

    def read_body(self, head):
        if head.is_chunked:
            return self.read_chunks()
        return self.read_exactly(int(head.headers.get("Content-Length", 0)))

    def read_answer_body(self, answer, method):
        if method == "HEAD" or answer.status in (204, 304):
            return self.read_exactly(0)
        return self.read_body(answer) if answer.has_length else self.read_to_end()


class Head:
    """The first line and the headers of a request or an answer."""

    def __init__(self, data):
        self.data = data
        line, _, fields = data.partition(b"\r\n")
        self.words = line.decode("latin-1").split(" ")
        self.headers = parse_headers(BytesIO(fields))

    @property
    def status(self):
        return int(self.words[1])

    @property
    def is_chunked(self):
        return self.headers.get("Transfer-Encoding", "").lower() == "chunked"

    @property
    def has_length(self):
        return self.is_chunked or "Content-Length" in self.headers

    @property
    def closes(self):
        """Tell whether the connection ends with this answer."""
        announced = self.headers.get("Connection", "").lower() == "close"
        return announced or not (self.has_length or self.status in (204, 304))


class Request:
    """A request that the proxy saw; path has its query.

    status is that of its answer, also of a swallowed one, and None while there is none.
    """

    def __init__(self, head):
        self.head, self.status = head, None
        self.method, self.path, _ = head.words

    def __repr__(self):
        return f"<{self.method} {self.path}: {self.status}>"


class Flow:
    """One direction of a line: so many bytes a second, each of which arrives after the latency.

    A deep one takes all bytes at once. When its sender hangs up, it delivers the rest.
    """

    def __init__(self, rate=inf, latency=0, deep=False):
        self.rate, self.latency, self.deep = rate, latency, deep
        self.free_at = 0

    @property
    def is_slow(self):
        """Tell whether its sender has to feel the rate."""
        return not self.deep and self.rate <= 500_000

    def open_up(self):
        self.rate, self.latency = inf, 0

    async def pace(self, data):
        """Wait until the line, which all requests share, has taken these bytes."""
        now = time.monotonic()
        self.free_at = max(self.free_at, now - BURST) + len(data) / self.rate
        await sleep_until(self.free_at)

    async def carry(self, pieces, target=None):
        """Deliver pieces to a peer, or to nobody, and return when all have arrived."""
        queue = asyncio.Queue(0 if self.deep else 256)  # 256 pieces are enough for any latency
        delivering = asyncio.create_task(self.deliver(queue, target))
        try:
            await self.take(pieces, queue)
            await queue.join()
        except (EOFError, OSError):
            await queue.join()
            raise
        finally:
            await cancel(delivering)

    async def take(self, pieces, queue):
        async for data in pieces:
            if not self.deep:
                await self.pace(data)
            await queue.put((time.monotonic(), data))

    async def deliver(self, queue, target):
        while True:
            taken_at, data = await queue.get()
            await sleep_until(taken_at + self.latency)
            if self.deep:
                await self.pace(data)
            if target:
                with suppress(OSError):  # The coroutine that reads from this peer sees its end.
                    await target.send(data)
            queue.task_done()


class Rule:
    """A fault or a line for the first so many requests to a path."""

    def __init__(self, path, value, times=inf):
        self.path, self.value, self.times = path, value, times
        self.requests = []
        self.over = asyncio.Event()

    def covers(self, request):
        return request.path.startswith(self.path) and len(self.requests) < self.times


class Exchange:
    """A request, and the ways to deal with it."""

    def __init__(self, client, request, upstream, line, over):
        self.client, self.request, self.upstream = client, request, upstream
        self.up, self.down = line
        self.over = over
        self.received = asyncio.Event()
        # A send buffer that has grown stays large, and the same connection may upload slowly later.
        client.limit_buffer(self.up.is_slow or not request.head.has_length)

    async def read_request(self):
        yield self.request.head.data
        async for data in self.client.read_body(self.request.head):
            yield data
        self.received.set()

    async def read_until_hung_up(self):
        async for data in self.read_request():
            yield data
        await self.client.wait_for_end()

    async def read_answer(self, server):
        head = await server.read_head()
        while head.status < 200:
            yield head.data
            head = await server.read_head()
        self.answer, self.request.status = head, head.status
        yield head.data
        async for data in server.read_answer_body(head, self.request.method):
            yield data

    def connect(self):
        return closing(Peer(open_socket(self.upstream)))  # at once: the server is on this machine

    async def send_to(self, server):
        """Send the request, and then wait for the client to hang up."""
        with suppress(EOFError, OSError):
            await self.up.carry(self.read_until_hung_up(), server)
        server.shut_down(socket.SHUT_WR)

    async def forward(self, take):
        """Send the request to the server, and give the pieces of the answer to a coroutine."""
        with self.connect() as server:
            sending = asyncio.create_task(self.send_to(server))
            try:
                await take(self.read_answer(server))
                if not self.received.is_set():  # A client that still sends would see a reset.
                    await race(self.received.wait(), server.wait_for_end())
            finally:
                await cancel(sending)

    async def pass_on(self):
        await self.forward(lambda pieces: self.down.carry(pieces, self.client))
        return not self.answer.closes


def answer(status, body="", content_type="text/html", headers=(), reads=True):
    """Answer with this page after the request's body; without reads, at once, and hang up."""
    fields = {"Content-Type": content_type, "Content-Length": len(body.encode()), **dict(headers)}
    lines = [f"HTTP/1.1 {status} {responses.get(status, 'Unknown')}"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    lines += [] if reads else ["Connection: close"]
    page = "\r\n".join([*lines, "", body]).encode()

    async def write():
        yield page

    async def spoil(exchange):
        if reads:
            await exchange.up.carry(exchange.read_request())
        exchange.request.status = status
        await exchange.down.carry(write(), exchange.client)
        return reads

    return spoil


def swallow():
    """Let the server have the request, but keep its answer from the client, and hang up."""

    async def drain(pieces):
        async for _ in pieces:
            pass

    async def spoil(exchange):
        await exchange.forward(drain)
        return False

    return spoil


def reset(after=0):
    """Reset the client's connection after so many bytes of the body. The server has them."""

    async def spoil(exchange):
        count = len(exchange.request.head.data) + after
        with exchange.connect() as server:
            await exchange.up.carry(first_bytes(exchange.read_request(), count), server)
        exchange.client.reset()
        return False

    return spoil


def hang():
    """Read the request, and hang up without an answer when the block ends."""

    async def spoil(exchange):
        await race(exchange.over.wait(), exchange.up.carry(exchange.read_until_hung_up()))
        return False

    return spoil


class Proxy:
    """A proxy on a free port, while the block runs, before the server at host:port or unix:path.

    requests are those that it has begun to receive, in their order.
    """

    def __init__(self, upstream):
        self.upstream = upstream
        self.requests, self.faults, self.lines = [], [], []

    def __enter__(self):
        self.listener = self.listen()
        self.port = self.listener.getsockname()[1]
        self.loop, self.stopping = asyncio.new_event_loop(), asyncio.Event()
        self.switch_interval = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_INTERVAL)
        self.executor = ThreadPoolExecutor(1)
        self.running = self.executor.submit(self.run)
        return self

    def __exit__(self, *exc_info):
        sys.setswitchinterval(self.switch_interval)
        with self.executor:
            self.call(self.stopping.set)
            self.running.result()  # An error in the proxy is raised here.

    @property
    def address(self):
        return f"{ADDRESS}:{self.port}"

    def fault(self, path, spoil, times=inf):
        """Spoil the first so many requests whose path begins with this; yield those it met."""
        return self.apply(self.faults, Rule(path, spoil, times))

    @contextmanager
    def throttle(self, path="/", upload=inf, latency=0, **options):
        """Let these requests have a line of so many bytes a second; see Flow for the options.

        The latency, in seconds, is that of each direction: half of a round trip. Bytes still
        on the line when the block ends go on without a limit.
        """
        up, down = Flow(upload, latency, **options), Flow(latency=latency)
        try:
            with self.apply(self.lines, Rule(path, (up, down))) as requests:
                yield requests
        finally:
            up.open_up()
            down.open_up()

    @contextmanager
    def apply(self, rules, rule):
        rules.insert(0, rule)
        try:
            yield rule.requests
        finally:
            rules.remove(rule)
            self.call(rule.over.set)

    def call(self, function):
        with suppress(RuntimeError):  # The loop is closed where an error has ended it.
            self.loop.call_soon_threadsafe(function)

    def listen(self):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        # The client's send buffer is as small as its segments. Loopback's have 64 KB. A segment
        # must fit into the small buffer: if the buffer was large before, Linux waits for room for a
        # whole segment.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 500)
        listener.bind((ADDRESS, 0))
        listener.listen()
        listener.setblocking(False)
        return listener

    def run(self):
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.run(self.serve())

    async def serve(self):
        with self.listener:
            await race(self.accept(), self.stopping.wait())

    async def accept(self):
        async with asyncio.TaskGroup() as clients:
            while True:
                await wait_until_readable(self.listener)
                sock, _ = self.listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                clients.create_task(self.serve_client(Peer(sock)))

    async def serve_client(self, client):
        with closing(client):
            try:
                while await self.deal_with(client):
                    pass
            except EOFError:
                pass
            except OSError:  # One end reset its connection, or the server takes none.
                client.reset()

    async def deal_with(self, client):
        """Deal with the next request, and tell whether the connection stays open."""
        request = Request(await client.read_head())
        self.requests.append(request)
        line = self.find(self.lines, request) or Rule("", (Flow(), Flow()))
        fault = self.find(self.faults, request) or Rule("", Exchange.pass_on)
        return await fault.value(Exchange(client, request, self.upstream, line.value, fault.over))

    def find(self, rules, request):
        """Return the latest rule that covers a request, which counts for it, or None."""
        for rule in tuple(rules):
            if rule.covers(request):
                rule.requests.append(request)
                return rule
        return None
