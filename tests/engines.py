"""The browsers of the tests: how each is started, driven by Selenium, and stopped."""

import json
import os
import shutil
import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from selenium import webdriver
from selenium.webdriver.remote.client_config import ClientConfig
from selenium.webdriver.remote.file_detector import UselessFileDetector
from selenium.webdriver.remote.remote_connection import RemoteConnection

from . import guardian
from .servers import ADDRESS, Program, Server, free_port

# Without these Chromium looks for its maker's servers.
QUIET = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost",
)

# An empty window without tabs. Chromium's own first page takes two seconds of a core.
WINDOW = ("--headless", "--app=data:,")

# Marionette turns most of Firefox's own traffic off. It still looks for its maker's settings and
# experiments, which it cannot find without DNS; it knows localhost.
PREFERENCES = """
user_pref("marionette.port", {port});
user_pref("network.dns.disabled", true);
"""

# Marionette's names of those commands that Selenium names otherwise.
MARIONETTE = {
    "actions": "PerformActions",
    "clearActionState": "ReleaseActions",
    "clearElement": "ElementClear",
    "clickElement": "ElementClick",
    "close": "CloseWindow",
    "elementScreenshot": "TakeScreenshot",
    "findChildElement": "FindElement",
    "findChildElements": "FindElements",
    "get": "Navigate",
    "getCurrentUrl": "GetCurrentURL",
    "getElementAriaLabel": "GetComputedLabel",
    "getElementAriaRole": "GetComputedRole",
    "getElementValueOfCssProperty": "GetElementCSSValue",
    "goBack": "Back",
    "goForward": "Forward",
    "quit": "DeleteSession",
    "screenshot": "TakeScreenshot",
    "sendKeysToElement": "ElementSendKeys",
    "w3cExecuteScriptAsync": "ExecuteAsyncScript",
    "w3cGetCurrentWindowHandle": "GetWindowHandle",
    "w3cSetAlertValue": "SendAlertText",
}


class ChromeService(webdriver.ChromeService):
    """chromedriver and the browser in a process group of their own, which the guardian ends."""

    def start(self):
        super().start()
        guardian.watch(self.process.pid)

    def stop(self):
        super().stop()
        guardian.forget(self.process.pid)


class Marionette:
    """Send Selenium's commands to Firefox in Firefox's own protocol.

    Debian has no geckodriver, which is the usual translator.
    https://firefox-source-docs.mozilla.org/testing/marionette/Protocol.html
    """

    def __init__(self, port):
        self.connection = socket.create_connection((ADDRESS, port), timeout=120)
        self.stream = self.connection.makefile("rb")
        self.receive()  # a greeting

    def close(self):
        self.stream.close()
        self.connection.close()

    def execute(self, command, parameters):
        self.send([0, 0, *translate(command, parameters)])
        _, _, error, result = self.receive()
        if error:
            return {"status": 500, "value": json.dumps(error)}
        return result if isinstance(result, dict) and "value" in result else {"value": result}

    def send(self, message):
        content = json.dumps(message)
        self.connection.sendall(f"{len(content)}:{content}".encode())

    def receive(self):
        length = b"".join(iter(lambda: self.read(1), b":"))
        return json.loads(self.read(int(length)))

    def read(self, length):
        if data := self.stream.read(length):
            return data
        raise ConnectionError("Firefox has closed the connection.")


def translate(command, parameters):
    """Return Marionette's name of a command, and its parameters."""
    name = MARIONETTE.get(command, command.removeprefix("w3c"))
    parameters = {key: value for key, value in parameters.items() if key != "sessionId"}
    if command == "newSession":
        parameters = parameters["capabilities"]["alwaysMatch"]
    elif command == "screenshot":
        parameters["full"] = False  # the window, as in other browsers, and not the whole page
    elif command.startswith("findChild"):
        parameters["element"] = parameters["id"]
    return f"WebDriver:{name[0].upper()}{name[1:]}", parameters


@contextmanager
def start_chromium(*arguments):
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    options.accept_insecure_certs = True
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for argument in (f"--user-data-dir={profile}", *WINDOW, *QUIET, *sandbox, *arguments):
            options.add_argument(argument)
        driver, port = shutil.which("chromedriver"), free_port()
        service = ChromeService(driver, port, popen_kw={"process_group": 0})
        with webdriver.Chrome(options, service) as browser:
            yield browser


@contextmanager
def start_firefox():
    port = free_port()
    command = ["firefox-esr", "--headless", "--marionette", "--profile"]
    with TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        Path(profile, "user.js").write_text(PREFERENCES.format(port=port))
        # The helper for crash reports would be in another process group.
        options = in_folder(profile, MOZ_CRASHREPORTER_DISABLE="1")
        with (
            Server(port, [*command, profile], **options),
            drive(Marionette(port), webdriver.FirefoxOptions()) as browser,
        ):
            yield browser


@contextmanager
def start_webkit():
    port = free_port()
    with (
        TemporaryDirectory(ignore_cleanup_errors=True) as home,
        start_display() as display,
        Server(port, ["WebKitWebDriver", f"--port={port}"], **in_folder(home, DISPLAY=display)),
        drive(connect(port), webdriver.WebKitGTKOptions()) as browser,
    ):
        yield browser


@contextmanager
def start_display():
    """Start an X server without a screen, and yield the name of its display."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    command = ["Xvfb", "-displayfd", "1", "-nolisten", "tcp"]
    with Display(command, **options) as display, display.process.stdout as answer:
        yield f":{int(answer.readline())}"


class Display(Program):
    """An X server; killed, it would leave its lock and its socket behind."""

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(60)
        finally:
            super().stop()


def connect(port):
    return RemoteConnection(client_config=ClientConfig(f"http://{ADDRESS}:{port}"))


def drive(executor, options):
    return webdriver.Remote(executor, options=options, file_detector=UselessFileDetector())


def in_folder(folder, **environment):
    """Return the options of a browser that keeps all its files in a folder."""
    environment |= {
        "DBUS_SESSION_BUS_ADDRESS": "disabled:",  # GLib would start a bus, which nobody stops.
        "HOME": folder,
        "LANG": "en_US.UTF-8",  # Without it WebKit names its language "C".
        "PATH": os.environ["PATH"],
        "TMPDIR": folder,
    }
    return {"env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
