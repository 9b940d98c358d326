"""The units of the stand-in for systemd: how each is started, watched and stopped."""

import asyncio
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from . import guardian
from .servers import PASS_SOCKET, Nginx, write_nginx_conf

SECONDS = {"": 1, "s": 1, "min": 60}
ENDED_IN_ORDER = {0, -signal.SIGHUP, -signal.SIGINT, -signal.SIGTERM, -signal.SIGPIPE}


class Refusal(Exception):
    """A command that systemctl could not carry out."""


class NotUnderstood(Exception):
    """A directive or an argument that this stand-in does not know."""


class Unit:
    """A unit, its state, and its directives as they were when it started. A timer is no more."""

    active, main_pid, task = "inactive", 0, None

    def __init__(self, supervisor, name):
        self.supervisor, self.name = supervisor, name

    async def start(self):
        self.directives = self.supervisor.read_unit(self.name)
        self.active = "active"

    async def stop(self):
        self.active = "inactive"

    def last(self, name, default=""):
        return self.directives.get(name, [default])[-1]

    def words(self, name):
        """Return the words of all lines of a directive."""
        return [word for line in self.directives.get(name, ()) for word in shlex.split(line)]

    def seconds(self, name, default):
        number, unit = re.fullmatch(r"([\d.]+)([a-z]*)", self.last(name, default)).groups()
        return float(number) * SECONDS[unit] * self.supervisor.scale


class Socket(Unit):
    """A socket that listens also while no service runs: connections wait in its queue."""

    async def start(self):
        if self.active == "active":
            return
        await super().start()
        path = Path(self.last("ListenStream"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(path))
        path.chmod(int(self.last("SocketMode"), 8))
        self.socket.listen(int(self.last("Backlog")))

    async def stop(self):
        if self.active == "active":
            self.socket.close()
        await super().stop()


class Service(Unit):
    process = started = None

    async def start(self):
        if self.started and self.started.done() and self.active in ("activating", "deactivating"):
            await self.stop()  # It ends, or waits for its next start.
        if self.active in ("inactive", "failed"):
            self.directives = self.supervisor.read_unit(self.name)
            await self.supervisor.call("start", self.words("Sockets"))
            self.asked_to_end = asyncio.Event()
            self.expect_start()
            self.task = asyncio.create_task(self.live())
        if not await asyncio.shield(self.started):
            raise Refusal(f"Job for {self.name} failed.\n")

    async def stop(self):
        if self.task and not self.task.done():
            self.asked_to_end.set()
            await self.terminate()
            await asyncio.shield(self.task)

    def expect_start(self):
        self.active = "activating"
        self.started = asyncio.get_running_loop().create_future()

    def note_start(self, has_started):
        if not self.started.done():
            self.started.set_result(has_started)

    async def live(self):
        """Run the service, and again after a pause if it fails and its unit says so."""
        while not (ended_in_order := await self.run()) and await self.waits_for_restart():
            self.expect_start()
        self.active = "inactive" if ended_in_order else "failed"

    async def waits_for_restart(self):
        if self.last("Restart") != "on-failure" or self.asked_to_end.is_set():
            return False
        self.active = "activating"
        with suppress(TimeoutError):
            pause = self.seconds("RestartSec", "0.1")
            await asyncio.wait_for(self.asked_to_end.wait(), pause)
        return not self.asked_to_end.is_set()

    async def run(self):
        """Run all commands of the service, and return whether it has ended in order."""
        with self.runtime_directories():
            try:
                ended_in_order = await self.run_commands()
            except OSError as error:
                self.log(f"{error}\n")
                ended_in_order = False
        self.note_start(False)
        return ended_in_order

    @contextmanager
    def runtime_directories(self):
        names = self.words("RuntimeDirectory")
        folders = [Path(self.supervisor.root, "run", name) for name in names]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(int(self.last("RuntimeDirectoryMode"), 8))
        yield
        if self.last("RuntimeDirectoryPreserve") != "yes":
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)

    async def run_commands(self):
        if self.last("Type") == "oneshot":
            has_succeeded = await self.run_all("ExecStartPre", "ExecStart")
            self.note_start(has_succeeded)
            return has_succeeded
        return await self.run_all("ExecStartPre") and await self.run_main()

    async def run_all(self, *names):
        """Run the commands of directives, up to one that fails; return whether none has."""
        for line in [line for name in names for line in self.directives.get(name, ())]:
            async with self.spawned(line) as process:
                if await process.wait() not in ENDED_IN_ORDER:
                    return False
        return True

    async def run_main(self):
        with self.notices() as ready:
            async with self.spawned(self.last("ExecStart")) as process:
                self.main_pid = process.pid
                if self.last("Type") != "notify":
                    ready.set()
                is_ready = await self.becomes_ready(process, ready)
                if is_ready:
                    self.active = "active"
                    self.note_start(True)
                else:
                    await self.terminate()
                status = await process.wait()
        self.main_pid = 0
        # Before it was ready even an end in order is a failure.
        return is_ready and status in ENDED_IN_ORDER

    async def becomes_ready(self, process, ready):
        """Wait until the process is ready or has ended, and return whether it is ready."""
        waits = [asyncio.create_task(coroutine) for coroutine in (ready.wait(), process.wait())]
        seconds = self.seconds("TimeoutStartSec", "90")
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in waits:
            task.cancel()
        return ready.is_set()

    @property
    def notify_socket(self):
        return self.supervisor.folder / f"{self.name}.notices"

    @contextmanager
    def notices(self):
        """Yield an event that is set when the service says that it is ready: see sd_notify(3)."""
        ready, loop = asyncio.Event(), asyncio.get_running_loop()

        def receive():
            if server.recv(4096) == b"READY=1":
                ready.set()

        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
            server.bind(str(self.notify_socket))
            loop.add_reader(server, receive)
            try:
                yield ready
            finally:
                loop.remove_reader(server)
                self.notify_socket.unlink()

    @asynccontextmanager
    async def spawned(self, line):
        """Start a program in a session of its own; nothing of it is left when the block ends."""
        options = {
            "cwd": self.last("WorkingDirectory", "/"),
            "env": self.read_environment(),
            "start_new_session": True,
            "stdin": self.find_listener() or subprocess.DEVNULL,
            "umask": int(self.last("UMask", "0022"), 8),
        }
        with self.supervisor.log_path(self.name).open("ab") as log:
            process = self.process = await asyncio.create_subprocess_exec(
                *self.read_command(line), stdout=log, stderr=log, **options
            )
        guardian.watch(process.pid)
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            guardian.forget(process.pid)

    def read_command(self, line):
        command = shlex.split(line.replace("$$", "$"))
        return ["sh", "-c", PASS_SOCKET, "sh", *command] if self.last("Sockets") else command

    def find_listener(self):
        """Return the socket that this service gets, or None."""
        if not self.last("Sockets"):
            return None
        listener = self.supervisor.unit(self.last("Sockets")).socket
        listener.setblocking(self.last("NonBlocking") != "yes")
        return listener

    def read_environment(self):
        variables = {
            "NOTIFY_SOCKET": str(self.notify_socket),
            "PATH": self.supervisor.environment["PATH"],
            "TMPDIR": str(self.supervisor.folder),
        }
        variables |= dict(word.split("=", 1) for word in self.words("Environment"))
        for path in self.directives.get("EnvironmentFile", ()):
            text = self.supervisor.relocate(Path(path).read_text())
            variables |= dict(word.split("=", 1) for word in shlex.split(text, comments=True))
        return variables

    async def terminate(self):
        """Ask the process to end, and kill it if it does not in time."""
        if self.process is None or self.process.returncode is not None:
            return
        self.active = "deactivating"
        self.signal("SIGTERM", main_alone=self.last("KillMode") == "mixed")
        try:
            seconds = self.seconds("TimeoutStopSec", "90")
            await asyncio.wait_for(self.process.wait(), seconds)
        except TimeoutError:
            self.log(f"{self.name} is killed.\n")
            self.signal("SIGKILL")

    def signal(self, name, main_alone=False):
        with suppress(ProcessLookupError):
            (os.kill if main_alone else os.killpg)(self.process.pid, signal.Signals[name])

    def log(self, text):
        with self.supervisor.log_path(self.name).open("a") as log:
            log.write(text)


class NginxService(Unit):
    """The real nginx, with the installed main file and sites, on ports of loopback."""

    async def start(self):
        if self.active == "active":
            return
        folder, port = self.supervisor.folder / "nginx", self.supervisor.http.split(":")[1]
        self.server = Nginx(folder, int(port), *self.supervisor.read_nginx())
        try:
            await asyncio.to_thread(self.server.start)
        except RuntimeError as error:
            raise Refusal(f"Job for {self.name} failed: {error}\n") from error
        self.active = "active"

    async def stop(self):
        if self.active == "active":
            self.active = "inactive"
            await asyncio.to_thread(self.server.stop)

    async def reload_or_restart(self):
        await (self.reload() if self.active == "active" else self.start())

    async def reload(self):
        status, _, err = await asyncio.to_thread(self.supervisor.check_nginx)
        if status:
            raise Refusal(err)
        write_nginx_conf(self.server.folder, *self.supervisor.read_nginx())
        self.server.reload()
