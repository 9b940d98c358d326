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
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack, suppress
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory

from .servers import ADDRESS, Memcached, Program, free_port, write_nginx_conf
from .stack import loopback_hosts
from .units import NginxService, NotUnderstood, Refusal, Service, Socket, Timer

UNDERSTOOD = re.compile(
    r"Backlog|Environment|EnvironmentFile|ExecStart|ExecStartPre|ExecStopPost|KillMode|ListenStream"
    r"|NonBlocking|NotifyAccess|OnFailure|RemainAfterExit|Requires|Restart|RestartSec|RuntimeDirectory"
    r"|RuntimeDirectoryMode|RuntimeDirectoryPreserve|Service|SocketMode|Sockets|TimeoutStartSec|TimeoutStopSec|Type|UMask"
    r"|WorkingDirectory"
)
IGNORED = re.compile(
    r"After|Before|CPU\w+|CapabilityBoundingSet|Description|Documentation|Group|IO\w+|IPAddress\w+"
    r"|Limit\w+|LockPersonality|Memory\w+|NoExecPaths|NoNewPrivileges|OOMPolicy|OnCalendar"
    r"|Persistent|Private\w+|ProcSubset|Protect\w+|RandomizedDelaySec|ReadWritePaths|RemoveIPC"
    r"|RequiresMountsFor|Restrict\w+|SocketBind\w+|SocketGroup|SocketUser|StartLimit\w+"
    r"|Syslog\w+|SystemCall\w+|TasksMax|User|WantedBy|Wants"
)
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
        units = list(self.find_units(options.names))
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
            case "start" | "stop" | "restart" | "reload" | "reload-or-restart":
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
        jobs = [asyncio.create_task(self._call(verb, unit)) for unit in self.find_units(names)]
        results = await asyncio.gather(*jobs, return_exceptions=True) if wait else ()
        for error in filter(None, results):
            raise error

    async def _call(self, verb, unit):
        if verb == "stop":
            await self.call("stop", [one.name for one in self.users(unit, "Requires")])
        for step in ("stop", "start") if verb == "restart" else (verb,):
            await getattr(unit, step.replace("-", "_"))()

    def find_units(self, names):
        """Yield the units of these names; those of a pattern are those that were used before."""
        for name in names:
            if re.search(r"[*?[]", name):
                yield from [unit for unit in self.units.values() if fnmatch(unit.name, name)]
            else:
                yield self.unit(name)

    def users(self, unit, directive):
        """Return the units that are not inactive, and name a unit in a directive."""
        units = [one for one in self.units.values() if one.active not in ("failed", "inactive")]
        return [one for one in units if unit.name in one.words(directive)]

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
        files = sorted([*folder.glob("conf.d/*.conf"), *folder.glob("sites-enabled/*")])
        site = self.relocate("".join(path.read_text() for path in files))
        main = (folder / "nginx.conf").read_text()
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
        """Run a program with these commands in PATH, and return the completed process."""
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
