"""The units of the stand-in for systemd: how each is started, watched and stopped."""

import asyncio
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from . import guardian
from .servers import Nginx, write_nginx_conf

UNITS_OF_TIME = {"ms": 0.001, "": 1, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600}
ENDED_IN_ORDER = {0, -signal.SIGHUP, -signal.SIGINT, -signal.SIGTERM, -signal.SIGPIPE}

# See sd_listen_fds(3): the sockets are the descriptors from 3 on, for this process alone.
PASS_SOCKETS = """
import fcntl, os, sys
sockets = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 512) for number in sys.argv[2].split()]
for number, descriptor in enumerate(sockets, 3):
    os.dup2(descriptor, number)
    os.set_blocking(number, sys.argv[1] != "yes")
os.closerange(3 + len(sockets), 1024)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(sockets)))
os.execvp(sys.argv[3], sys.argv[3:])
"""


class Refusal(Exception):
    """A command that systemctl could not carry out."""

    def __init__(self, text, status=1):
        super().__init__(text)
        self.status = status


class NotUnderstood(Exception):
    """A directive, an argument or a path that this stand-in does not know."""


def read_seconds(text):
    """Return the seconds of a time span such as `1min 30s`, or None for `infinity`."""
    if text == "infinity":
        return None
    spans = re.findall(r"([\d.]+) ?([a-z]*)", text)
    return sum(float(number) * UNITS_OF_TIME[unit] for number, unit in spans)


class Unit:
    """A unit, its state, and its directives as they were when it started."""

    main_pid = 0

    def __init__(self, supervisor, name):
        self.supervisor, self.name = supervisor, name
        self.directives = {}
        self.set_state("inactive", "dead")

    def set_state(self, active, sub):
        self.active, self.sub = active, sub

    def last(self, name, default=""):
        return self.directives.get(name, [default])[-1]

    def words(self, name):
        """Return the words of all lines of a directive."""
        return [word for line in self.directives.get(name, ()) for word in shlex.split(line)]

    def seconds(self, name, default):
        seconds = read_seconds(self.last(name, default))
        return seconds and seconds * self.supervisor.scale


class Timer(Unit):
    async def start(self):
        self.directives = self.supervisor.read_unit(self.name)
        self.set_state("active", "waiting")

    async def stop(self):
        self.set_state("inactive", "dead")


class Socket(Unit):
    """A socket that listens while services start again, as connections wait in its queue."""

    async def start(self):
        if self.active == "active":
            return
        self.directives = self.supervisor.read_unit(self.name)
        path = Path(self.last("ListenStream"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(path))
        path.chmod(int(self.last("SocketMode", "0666"), 8))
        self.socket.listen(int(self.last("Backlog", "4096")))
        self.set_state("active", "running")
        self.wait_for_connection()

    def wait_for_connection(self):
        """Start a service when a client connects, unless one runs that accepts connections here."""
        if self.sub == "running":
            self.set_state("active", "listening")
            asyncio.get_running_loop().add_reader(self.socket, self.note_connection)

    def note_connection(self):
        asyncio.get_running_loop().remove_reader(self.socket)
        self.set_state("active", "running")
        if not self.supervisor.users(self, "Sockets"):
            self.starting = asyncio.create_task(
                self.supervisor.call("start", self.words("Service"), wait=False)
            )

    async def stop(self):
        if self.active == "active":
            asyncio.get_running_loop().remove_reader(self.socket)
            self.socket.close()
        self.set_state("inactive", "dead")


class Service(Unit):
    task = process = None

    async def start(self):
        if self.sub in ("auto-restart", "stop-sigterm"):
            await self.stop()
        if self.active in ("inactive", "failed"):
            self.directives = self.supervisor.read_unit(self.name)
            await self.supervisor.call("start", self.words("Requires") + self.words("Sockets"))
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
        self.set_state("activating", "start")
        self.started = asyncio.get_running_loop().create_future()

    def note_start(self, has_started):
        if not self.started.done():
            self.started.set_result(has_started)

    async def live(self):
        """Run the service, and again when it ends in a way that Restart= names."""
        result = await self.run()
        while await self.waits_for_restart(result):
            self.expect_start()
            result = await self.run()
        if result == "success":
            self.set_state("inactive", "dead")
        else:
            self.set_state("failed", "failed")
        for socket_unit in self.supervisor.find_units(self.words("Sockets")):
            socket_unit.wait_for_connection()
        if result != "success":
            await self.supervisor.call("start", self.words("OnFailure"))

    async def waits_for_restart(self, result):
        again = {"no": False, "always": True, "on-failure": result != "success"}
        if not again[self.last("Restart", "no")] or self.asked_to_end.is_set():
            return False
        self.set_state("activating", "auto-restart")
        with suppress(TimeoutError):
            pause = self.seconds("RestartSec", "100ms")
            await asyncio.wait_for(self.asked_to_end.wait(), pause)
        return not self.asked_to_end.is_set()

    async def run(self):
        """Run all commands of the service, and return the result."""
        with self.runtime_directories() as folders:
            self.variables = {"RUNTIME_DIRECTORY": ":".join(folders)}
            try:
                result = await self.run_start()
            except OSError as error:
                self.log(f"{error}\n")
                result = "resources"
            self.note_start(False)
            self.variables["SERVICE_RESULT"] = result
            await self.run_all("ExecStopPost")
        return result

    @contextmanager
    def runtime_directories(self):
        folders = [
            Path(self.supervisor.root, "run", name) for name in self.words("RuntimeDirectory")
        ]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(int(self.last("RuntimeDirectoryMode", "0755"), 8))
        yield map(str, folders)
        for folder in folders if self.last("RuntimeDirectoryPreserve", "no") == "no" else ():
            shutil.rmtree(folder, ignore_errors=True)

    async def run_start(self):
        result = await self.run_all("ExecStartPre")
        if result != "success":
            return result
        kind = self.last("Type", "simple")
        if kind == "oneshot":
            return await self.run_oneshot()
        if kind not in ("exec", "notify", "simple"):
            raise NotUnderstood(f"{self.name}: Type={kind}")
        return await self.run_main(kind)

    async def run_oneshot(self):
        result = await self.run_all("ExecStart")
        self.note_start(result == "success")
        if result == "success" and self.last("RemainAfterExit") == "yes":
            self.set_state("active", "exited")
            await self.asked_to_end.wait()
        return result

    async def run_all(self, name):
        """Run the commands of a directive, up to one that fails, and return the result."""
        for line in self.directives.get(name, ()):
            async with self.spawned(line) as process:
                result = result_of(await process.wait())
            if result != "success" and "-" not in split_prefix(line)[0]:
                return result
        return "success"

    async def run_main(self, kind):
        async with self.notices() as ready, self.spawned(self.last("ExecStart")) as process:
            self.main_pid = process.pid
            if kind != "notify":
                ready.set()
            is_ready = await self.becomes_ready(process, ready)
            if is_ready:
                self.set_state("active", "running")
                self.note_start(True)
            elif process.returncode is None:
                await self.terminate()
            result = result_of(await process.wait())
        self.main_pid = 0
        # Before it was ready even an end in order is a failure.
        return "protocol" if not is_ready and result == "success" else result

    async def becomes_ready(self, process, ready):
        """Wait until the process is ready or has ended, and return whether it is ready."""
        waits = [asyncio.create_task(coroutine) for coroutine in (ready.wait(), process.wait())]
        seconds = self.seconds("TimeoutStartSec", "90s")
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in waits:
            task.cancel()
        return ready.is_set()

    @asynccontextmanager
    async def notices(self):
        """Receive what the service says of itself, as in sd_notify(3)."""
        ready = asyncio.Event()

        async def receive():
            while True:
                notice = await asyncio.get_running_loop().sock_recv(server, 4096)
                if b"READY=1" in notice.splitlines():
                    ready.set()

        path = self.supervisor.folder / f"{self.name}.notices"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
            server.setblocking(False)
            server.bind(str(path))
            self.variables["NOTIFY_SOCKET"] = str(path)
            receiving = asyncio.create_task(receive())
            try:
                yield ready
            finally:
                receiving.cancel()
                await asyncio.wait([receiving])
                path.unlink()
                del self.variables["NOTIFY_SOCKET"]

    @asynccontextmanager
    async def spawned(self, line):
        """Start a program in a session of its own; nothing of it is left when the block ends."""
        variables = self.environment()
        command = [expand(word, variables) for word in shlex.split(split_prefix(line)[1])]
        sockets = [self.supervisor.unit(name).socket.fileno() for name in self.words("Sockets")]
        if sockets:
            numbers = " ".join(map(str, sockets))
            options = [self.last("NonBlocking", "no"), numbers]
            command = [sys.executable, "-ISc", PASS_SOCKETS, *options, *command]
        with self.supervisor.log_path(self.name).open("ab") as log:
            process = self.process = await asyncio.create_subprocess_exec(
                *command,
                cwd=self.last("WorkingDirectory", "/"),
                env=variables,
                pass_fds=sockets,
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                umask=int(self.last("UMask", "0022"), 8),
            )
        guardian.watch(process.pid)
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            guardian.forget(process.pid)

    def environment(self):
        variables = {**self.supervisor.variables_of_services, **self.variables}
        variables |= dict(word.split("=", 1) for word in self.words("Environment"))
        for path in self.directives.get("EnvironmentFile", ()):
            text = self.supervisor.relocate(Path(path).read_text())
            variables |= dict(word.split("=", 1) for word in shlex.split(text, comments=True))
        return variables

    async def terminate(self):
        """Ask the process to end, and kill it if it does not in time."""
        if self.process is None or self.process.returncode is not None:
            return
        self.set_state("deactivating", "stop-sigterm")
        self.signal("SIGTERM", main_alone=self.last("KillMode") in ("mixed", "process"))
        try:
            seconds = self.seconds("TimeoutStopSec", "90s")
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
        self.server = Nginx(*self.supervisor.nginx_arguments())
        try:
            await asyncio.to_thread(self.server.start)
        except RuntimeError as error:
            raise Refusal(f"Job for {self.name} failed: {error}\n") from error
        self.main_pid = self.server.process.pid
        self.set_state("active", "running")

    async def stop(self):
        if self.active == "active":
            self.set_state("inactive", "dead")
            self.main_pid = 0
            await asyncio.to_thread(self.server.stop)

    async def reload(self):
        if self.active != "active":
            raise Refusal(f"{self.name} is not active, cannot reload.\n")
        status, _, err = await asyncio.to_thread(self.supervisor.check_nginx)
        if status:
            raise Refusal(err)
        folder, _, main, site = self.supervisor.nginx_arguments()
        write_nginx_conf(folder, main, site)
        self.server.reload()

    async def reload_or_restart(self):
        await (self.reload() if self.active == "active" else self.start())


def split_prefix(line):
    """Return the prefix of a command, such as `+-`, and the command."""
    return re.fullmatch(r"([-+!]*)(.+)", line).groups()


def expand(word, variables):
    """Put the values of variables into a word of a command."""
    return re.sub(
        r"\$(?:(\$)|(\w+)|\{(\w+)\})",
        lambda found: found[1] or variables.get(found[2] or found[3], ""),
        word,
    )


def result_of(status):
    if status in ENDED_IN_ORDER:
        return "success"
    return "exit-code" if status > 0 else "signal"
