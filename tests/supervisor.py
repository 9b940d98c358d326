"""A stand-in for systemd: it reads units, passes sockets, waits until services are ready, starts
those again that fail, and ends them. It obeys a `systemctl` and an `nginx` of its own.

All files are below a folder that stands for the root. IGNORED directives have no effect. A
directive or an argument that it does not know is an error.
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
from .units import NginxService, NotUnderstood, Refusal, Service, Socket, Unit

UNDERSTOOD = re.compile(
    r"Backlog|Environment|EnvironmentFile|ExecStart|ExecStartPre|KillMode|ListenStream|NonBlocking"
    r"|Restart|RestartSec|RuntimeDirectory\w*|SocketMode|Sockets|Timeout(Start|Stop)Sec|Type|UMask"
    r"|WorkingDirectory"
)
IGNORED = re.compile(
    r"After|CPUWeight|CapabilityBoundingSet|Description|ExecStopPost|Group|IOSchedulingClass"
    r"|IPAddress\w+|LimitNOFILE|LockPersonality|MemoryDenyWriteExecute|MemoryMax|NoExecPaths"
    r"|NoNewPrivileges|NotifyAccess|OOMPolicy|OnCalendar|OnFailure|Persistent|Private\w+|ProcSubset"
    r"|Protect\w+|RandomizedDelaySec|ReadWritePaths|RemoveIPC|Requires|RequiresMountsFor|Restrict\w+"
    r"|Service|SocketBind\w+|SocketGroup|SocketUser|StartLimitIntervalSec|SyslogIdentifier"
    r"|SystemCall\w+|TasksMax|User|WantedBy|Wants"
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
    parser.add_argument("--signal")
    parser.add_argument("--kill-whom", choices=["main"])
    parser.add_argument("--state", type=lambda text: text.split(","))
    for flag in ("--no-legend", "--now", "--plain", "--quiet"):
        parser.add_argument(flag, action="store_true")
    return parser.parse_intermixed_args(arguments)


class Supervisor(ExitStack):
    """The services of a machine whose files are below `root`, while the block runs.

    All times of units are multiplied by `scale`.
    """

    kinds = {".service": Service, ".socket": Socket, ".timer": Unit}

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
        tasks = [unit.task for unit in self.units.values() if unit.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for unit in self.units.values():
            if not unit.task:
                await unit.stop()

    async def _answer(self, reader, writer):
        program, *arguments = json.loads(await reader.readline())
        out = err = ""
        try:
            if program == "nginx":
                status, out, err = await asyncio.to_thread(self.check_nginx, *arguments)
            else:
                status, out = 0, await self._obey(read_arguments(arguments))
        except (OSError, Refusal) as error:
            status, err = 1, f"{error}\n"
        except (NotUnderstood, KeyError) as error:
            status, err = 1, f"{shlex.join([program, *arguments])}: {error!r}\n"
            self.misunderstood.append(err)
        with suppress(ConnectionError):
            writer.write(json.dumps([status, out, err]).encode())
            writer.close()
            await writer.wait_closed()

    async def _obey(self, options):
        """Carry out a command of systemctl, and return what it prints."""
        match options.verb:
            case "daemon-reload":
                self.texts.clear()
            case "enable" | "disable":
                await self._enable(options)
            case "kill":
                for unit in self.find_units(options.names):
                    if options.kill_whom == "main" and not unit.main_pid:
                        raise Refusal(f"Failed to kill unit {unit.name}: No main process.\n")
                    unit.signal(options.signal, main_alone=options.kill_whom == "main")
            case "list-units":
                units = self.find_units(options.names)
                states = options.state
                rows = [(unit.name, "loaded", unit.active) for unit in units]
                return "".join(f"{' '.join(row)}\n" for row in rows if row[2] in states)
            case "start" | "stop" | "restart" | "reload-or-restart":
                await self.call(options.verb, options.names)
            case _:
                raise NotUnderstood(options.verb)
        return ""

    async def _enable(self, options):
        change = self.enabled.add if options.verb == "enable" else self.enabled.discard
        for unit in self.find_units(options.names):
            change(unit.name)
        if options.now:
            await self.call("start" if options.verb == "enable" else "stop", options.names)

    async def call(self, verb, names):
        """Start, stop or restart units, all at once."""
        jobs = [self._call(verb, unit) for unit in self.find_units(names)]
        for error in filter(None, await asyncio.gather(*jobs, return_exceptions=True)):
            raise error

    async def _call(self, verb, unit):
        for step in ("stop", "start") if verb == "restart" else (verb,):
            await getattr(unit, step.replace("-", "_"))()

    def find_units(self, names):
        """Yield the units of these names; those of a pattern are those that were used before."""
        for name in names:
            if "*" in name:
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
        if file not in self.texts:
            self.texts[file] = (self.root / "etc/systemd/system" / file).read_text()
        specifiers = {"%": "%", "i": instance, "N": Path(name).stem}
        directives = {}
        for key, value in re.findall(r"(?m)^(\w+)=(.*)$", self.texts[file]):
            if UNDERSTOOD.fullmatch(key):
                text = re.sub("%(.)", lambda found: specifiers[found[1]], value)
                directives.setdefault(key, []).append(self.relocate(text))
            elif not IGNORED.fullmatch(key):
                raise NotUnderstood(f"{name}: {key}={value}")
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
            folder = self.folder / "nginx-check"
            config = write_nginx_conf(folder, *self.read_nginx())
            command = ["nginx", "-t", "-q", "-e", f"{folder}/error.log", "-c", str(config)]
        done = subprocess.run(command, capture_output=True, check=False, text=True)
        return done.returncode, done.stdout, done.stderr

    def read_nginx(self):
        """Return nginx's main file and all sites, on the ports of this stand-in."""
        folder = self.root / "etc/nginx"
        sites = "".join(path.read_text() for path in sorted(folder.glob("sites-enabled/*")))
        listen = r"\blisten (\[::\]:)?([^ ;]+)([^;]*);"
        sites = re.sub(listen, self._listen_on_loopback, self.relocate(sites))
        return (folder / "nginx.conf").read_text(), sites

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
