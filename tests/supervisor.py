"""A stand-in for systemd: it reads units, passes sockets, waits until services are ready, starts
those again that fail, and ends them. It obeys a `systemctl` and an `nginx` of its own.

All files are below a folder that stands for the root. Users, limits, the sandbox and the times of
timers have no effect. A directive that it does not know is an error.
"""

import argparse
import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory

from . import guardian
from .servers import ADDRESS, Memcached, Nginx, Program, free_port, write_nginx_conf
from .stack import loopback_hosts

UNDERSTOOD = re.compile(
    r"Backlog|Environment|EnvironmentFile|ExecStart|ExecStartPre|ExecStopPost|KillMode|ListenStream"
    r"|NotifyAccess|OnFailure|RemainAfterExit|Restart|RestartSec|RuntimeDirectory"
    r"|RuntimeDirectoryMode|SocketMode|Sockets|TimeoutStartSec|TimeoutStopSec|Type|UMask"
    r"|WorkingDirectory"
)
IGNORED = re.compile(
    r"After|Before|CPU\w+|CapabilityBoundingSet|Description|Documentation|Group|IO\w+|IPAddress\w+"
    r"|Limit\w+|LockPersonality|Memory\w+|NoExecPaths|NoNewPrivileges|OOMPolicy|OnCalendar"
    r"|Persistent|Private\w+|ProcSubset|Protect\w+|RandomizedDelaySec|ReadWritePaths|RemoveIPC"
    r"|RequiresMountsFor|Restrict\w+|Service|SocketBind\w+|SocketGroup|SocketUser|Syslog\w+"
    r"|SystemCall\w+|TasksMax|User|WantedBy|Wants"
)
UNITS_OF_TIME = {"ms": 0.001, "": 1, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600}
ENDED_IN_ORDER = {0, -signal.SIGHUP, -signal.SIGINT, -signal.SIGTERM, -signal.SIGPIPE}

# The programs in PATH send their arguments, and print the answer.
PROGRAM = """
import json, socket, sys
with socket.socket(socket.AF_UNIX) as client:
    client.connect(sys.argv[1])
    client.sendall(json.dumps(sys.argv[2:]).encode() + b"\\n")
    status, out, err = json.load(client.makefile())
sys.stdout.write(out)
sys.stderr.write(err)
sys.exit(status)
"""
# See sd_listen_fds(3): the sockets are the descriptors from 3 on, for this process alone.
PASS_SOCKETS = """
import fcntl, os, sys
sockets = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 512) for number in sys.argv[1].split()]
for number, descriptor in enumerate(sockets, 3):
    os.dup2(descriptor, number)
os.closerange(3 + len(sockets), 1024)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(sockets)))
os.execvp(sys.argv[2], sys.argv[2:])
"""


class Refusal(Exception):
    """A command that systemctl could not carry out."""

    def __init__(self, text, status=1):
        super().__init__(text)
        self.status = status


class NotUnderstood(Exception):
    """A directive, an argument or a path that this stand-in does not know."""


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise NotUnderstood(message)


def read_arguments(arguments):
    parser = Parser(prog="systemctl", add_help=False)
    parser.add_argument("verb")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--signal", "-s", default="SIGTERM")
    parser.add_argument("--kill-whom", choices=("all", "main"), default="all")
    parser.add_argument("--property", "-P", choices=("ActiveState", "MainPID", "SubState"))
    parser.add_argument("--state", type=lambda text: text.split(","))
    for flag in ("--now", "--no-block", "--no-legend", "--no-pager", "--plain", "--quiet"):
        parser.add_argument(flag, action="store_true")
    return parser.parse_intermixed_args(arguments)


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
        self.set_state("active", "listening")

    async def stop(self):
        if self.active == "active":
            self.socket.close()
        self.set_state("inactive", "dead")


class Service(Unit):
    task = process = None

    async def start(self):
        if self.sub in ("auto-restart", "stop-sigterm"):
            await self.stop()
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
        for folder in folders:
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
            command = [sys.executable, "-ISc", PASS_SOCKETS, numbers, *command]
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


class Supervisor(ExitStack):
    """The services of a machine whose files are below `root`, while the block runs.

    All times of units are multiplied by `scale`.
    """

    kinds = {".service": Service, ".socket": Socket, ".timer": Timer}

    def __init__(self, root, scale=1):
        super().__init__()
        self.root, self.scale = Path(root), scale
        self.enabled, self.texts, self.misunderstood = set(), {}, []
        self.units = {"nginx.service": NginxService(self, "nginx.service")}
        self.http, self.https = (f"{ADDRESS}:{free_port()}" for _ in range(2))

    def __enter__(self):
        super().__enter__()
        with ExitStack() as stack:
            self.folder = Path(stack.enter_context(TemporaryDirectory(prefix="gourmious-")))
            for name in ("bin", "log", "nginx", "nginx-check"):
                (self.folder / name).mkdir()
            self.memcached = stack.enter_context(Memcached())
            self.server = stack.enter_context(socket.socket(socket.AF_UNIX))
            self.server.bind(str(self.folder / "socket"))
            self.server.listen()
            self._write_programs()
            self._start_thread()
            self.push(stack.pop_all())
        self.callback(self._end_thread)
        return self

    def __exit__(self, *exc_info):
        super().__exit__(*exc_info)
        if self.misunderstood and not exc_info[0]:
            raise NotUnderstood("\n".join(self.misunderstood))

    def _write_programs(self):
        for name in ("systemctl", "nginx"):
            command = [sys.executable, "-ISc", PROGRAM, str(self.folder / "socket"), name]
            path = self.folder / "bin" / name
            path.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
            path.chmod(0o755)

    def _start_thread(self):
        begun = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self._serve(begun)))
        self.thread.start()
        begun.wait()

    def _end_thread(self):
        self.loop.call_soon_threadsafe(self.closed.set)
        self.thread.join()

    async def _serve(self, begun):
        self.loop, self.closed = asyncio.get_running_loop(), asyncio.Event()
        begun.set()
        server = await asyncio.start_unix_server(self._answer, sock=self.server)
        await self.closed.wait()
        server.close()
        await self._end_all()

    async def _end_all(self):
        """End all units at once, as a machine does that is switched off."""
        tasks = [unit.task for unit in self.units.values() if getattr(unit, "task", None)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for unit in self.units.values():
            if not isinstance(unit, Service):
                await unit.stop()

    async def _answer(self, reader, writer):
        program, *arguments = json.loads(await reader.readline())
        out = err = ""
        try:
            if program == "nginx":
                status, out, err = await asyncio.to_thread(self.check_nginx, *arguments)
            else:
                status, out = await self._obey(read_arguments(arguments))
        except Refusal as refusal:
            status, err = refusal.status, str(refusal)
        except OSError as error:
            status, err = 1, f"{error}\n"
        except (NotUnderstood, KeyError) as error:
            status, err = 1, f"{shlex.join([program, *arguments])}: {error!r}\n"
            self.misunderstood.append(err)
        with suppress(ConnectionError):
            writer.write(json.dumps([status, out, err]).encode())
            writer.close()
            await writer.wait_closed()

    async def _obey(self, options):
        """Carry out a command of systemctl, and return its status and what it prints."""
        units = list(self._find(options.names))
        match options.verb:
            case "daemon-reload":
                self.texts.clear()
            case "enable" | "disable":
                await self._enable(units, options)
            case "kill":
                for unit in units:
                    unit.signal(options.signal, main_alone=options.kill_whom == "main")
            case "reset-failed":
                for unit in [unit for unit in units if unit.active == "failed"]:
                    unit.set_state("inactive", "dead")
            case "start" | "stop" | "restart" | "reload":
                await self.call(options.verb, options.names, wait=not options.no_block)
            case _:
                return self._tell(units, options)
        return 0, ""

    def _tell(self, units, options):
        match options.verb:
            case "is-active" | "is-failed":
                wanted = options.verb.removeprefix("is-")
                status = 0 if any(unit.active == wanted for unit in units) else 3
                return status, "" if options.quiet else lines(unit.active for unit in units)
            case "is-enabled":
                enabled = [unit.name in self.enabled for unit in units]
                return 0 if any(enabled) else 1, lines(
                    "enabled" if is_enabled else "disabled" for is_enabled in enabled
                )
            case "list-units":
                units = units if options.names else self.units.values()
                return 0, lines(
                    f"{unit.name} loaded {unit.active} {unit.sub} {unit.name}"
                    for unit in units
                    if unit.active != "inactive"
                    and (not options.state or {unit.active, unit.sub} & {*options.state})
                )
            case "show":
                name = {"ActiveState": "active", "MainPID": "main_pid", "SubState": "sub"}
                return 0, lines(getattr(unit, name[options.property]) for unit in units)
        raise NotUnderstood(options.verb)

    async def _enable(self, units, options):
        change = self.enabled.add if options.verb == "enable" else self.enabled.discard
        for unit in units:
            change(unit.name)
        if options.now:
            await self.call("start" if options.verb == "enable" else "stop", options.names)

    async def call(self, verb, names, wait=True):
        """Start, stop, restart or reload units, all at once."""
        jobs = [asyncio.create_task(self._call(verb, unit)) for unit in self._find(names)]
        results = await asyncio.gather(*jobs, return_exceptions=True) if wait else ()
        for error in filter(None, results):
            raise error

    async def _call(self, verb, unit):
        for step in ("stop", "start") if verb == "restart" else (verb,):
            await getattr(unit, step)()

    def _find(self, names):
        for name in names:
            if re.search(r"[*?[]", name):
                yield from [unit for unit in self.units.values() if fnmatch(unit.name, name)]
            else:
                yield self.unit(name)

    def unit(self, name):
        name = name if Path(name).suffix in self.kinds else f"{name}.service"
        if name not in self.units:
            self.units[name] = self.kinds[Path(name).suffix](self, name)
        return self.units[name]

    def read_unit(self, name):
        """Return the directives of a unit, as its file was at the last daemon-reload."""
        file, instance = re.sub(r"@.+\.", "@.", name), "".join(re.findall(r"@(.+)\.", name))
        try:
            path = self.root / "etc/systemd/system" / file
            text = self.texts[file] = self.texts.get(file) or path.read_text()
        except FileNotFoundError as error:
            raise Refusal(f"Unit {name} not found.\n", 5) from error
        stem = Path(name).stem
        specifiers = {"%": "%", "i": instance, "n": name, "N": stem, "p": stem.split("@")[0]}
        directives = {}
        for line in text.replace("\\\n", " ").splitlines():
            key, equals, value = line.partition("=")
            if not equals or line.startswith(("#", ";")) or IGNORED.fullmatch(key):
                continue
            if not UNDERSTOOD.fullmatch(key):
                raise NotUnderstood(f"{name}: {line}")
            value = re.sub(r"%(.)", lambda found: specifiers[found[1]], value)
            values = directives.setdefault(key, [])
            values.append(self.relocate(value)) if value else values.clear()
        return directives

    def relocate(self, text):
        """Put the root before all absolute paths of the machine that stand in a text."""
        place = r"/(?=(?:etc|run|srv|usr/local|var)(?:[/\s\"';,]|$))"
        return re.sub(rf"(?<![\w./-])(?!{re.escape(str(self.root))}){place}", f"{self.root}/", text)

    def check_nginx(self, *arguments):
        """Run `nginx -t` on the installed files, or `nginx -v`."""
        command = ["nginx", "-v"]
        if arguments != ("-v",):
            if {*arguments} - {"-q", "-t"}:
                raise NotUnderstood(arguments)
            _, _, *texts = self.nginx_arguments()
            folder = self.folder / "nginx-check"
            config = write_nginx_conf(folder, *texts)
            command = ["nginx", "-t", "-q", "-e", f"{folder}/error.log", "-c", str(config)]
        done = subprocess.run(command, capture_output=True, check=False, text=True)
        return done.returncode, done.stdout, done.stderr

    def nginx_arguments(self):
        folder = self.root / "etc/nginx"
        sites = [path.read_text() for path in sorted((folder / "sites-enabled").iterdir())]
        main, site = (folder / "nginx.conf").read_text(), self.relocate("".join(sites))
        site = re.sub(r"\blisten (\[::\]:)?([^ ;]+)([^;]*);", self._listen_on_loopback, site)
        return self.folder / "nginx", int(self.http.split(":")[1]), main, site

    def _listen_on_loopback(self, found):
        host = "[::1]" if found[1] else ADDRESS
        port = {"80": self.http, "443": self.https}[found[2]].split(":")[1]
        return f"listen {host}:{port}{found[3]};" if host in loopback_hosts() else ""

    def log_path(self, name):
        """Return the path of a file with all that a unit's programs have printed."""
        return self.folder / "log" / name

    @property
    def environment(self):
        """The variables with which a program finds this systemctl and this nginx."""
        return {**os.environ, "PATH": f"{self.folder}/bin:{os.environ['PATH']}"}

    @property
    def variables_of_services(self):
        names = ("PATH", "TMPDIR")
        return {name: value for name, value in self.environment.items() if name in names}

    def run(self, *command, **variables):
        """Run a program to its end, as root would in a terminal."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        environment = {**self.environment, **variables}
        with Program(command, env=environment, stdin=subprocess.DEVNULL, **options) as program:
            out, err = program.process.communicate()
        return subprocess.CompletedProcess(command, program.process.returncode, out, err)

    def reboot(self):
        """Switch the machine off and on again: the enabled units start, and nginx if it ran."""
        asyncio.run_coroutine_threadsafe(self._reboot(), self.loop).result()

    async def _reboot(self):
        nginx = ["nginx"] if self.units["nginx.service"].active == "active" else []
        await self._end_all()
        shutil.rmtree(self.root / "run", ignore_errors=True)
        self.units = {"nginx.service": NginxService(self, "nginx.service")}
        self.texts.clear()
        await self.call("start", [*nginx, *self.enabled])


def lines(texts):
    return "".join(f"{text}\n" for text in texts)
