"""Forms of real clients. Their photos are kept byte for byte, and their files' names are read."""

import asyncio
import json
import re
import subprocess

import aiohttp
import httpx
import requests

from tests.client import Answer, client_headers, connect, get_answer
from tests.servers import requires

from .clients import NAME, ClientTestCase, run_client

NODE = """
const [url, headers, id, path, name] = JSON.parse(process.argv[1]);
const form = new FormData();
form.set('id', id);
form.set('picture', new Blob([require('fs').readFileSync(path)], {type: 'image/jpeg'}), name);
fetch(url, {method: 'POST', headers, body: form})
  .then(async answer => process.stdout.write(await answer.text() + answer.status));
"""


class ClientTests(ClientTestCase):
    def curl(self, content, *options):
        headers = [f"-H{name}: {value}" for name, value in self.headers.items()]
        form = ["-F", f"id={self.dish.pk}", "-F", f"picture=@{self.write_file(content)}"]
        return run_client("curl", "-sk", "-w", "%{http_code}", *options, *headers, *form, self.url)

    @requires("curl")
    def test_curl_can_upload(self):
        self.assert_understood(self.curl)

    @requires("curl")
    def test_curl_that_waits_for_100_continue_can_upload(self):
        self.assert_understood(lambda content: self.curl(content, "-H", "Expect: 100-continue"))

    @requires("curl")
    def test_curl_over_http_2_can_upload(self):
        self.url = f"https://{self.https}/upload"
        self.headers = client_headers(self.https, secure=True)

        self.assert_understood(lambda content: self.curl(content, "--http2"))

    @requires("node")
    def test_node_can_upload(self):
        def send(content):
            arguments = [
                self.url,
                self.headers,
                str(self.dish.pk),
                str(self.write_file(content)),
                NAME,
            ]
            return run_client("node", "-e", NODE, json.dumps(arguments))

        self.assert_understood(send)

    def test_requests_can_upload(self):
        def send(content):
            with requests.Session() as session:
                session.trust_env = False
                files = {"picture": (NAME, content)}
                options = {"data": self.fields, "files": files, "headers": self.headers}
                answer = session.post(self.url, **options)
                return Answer(answer.status_code, answer.headers, answer.text)

        self.assert_understood(send)

    def test_httpx_can_upload(self):
        def send(content):
            with httpx.Client(trust_env=False) as client:
                files = {"picture": (NAME, content)}
                options = {"data": self.fields, "files": files, "headers": self.headers}
                answer = client.post(self.url, **options)
                return Answer(answer.status_code, answer.headers, answer.text)

        self.assert_understood(send)

    def test_aiohttp_can_upload(self):
        async def send(content):
            form = aiohttp.FormData(self.fields, quote_fields=False)
            form.add_field("picture", content, filename=NAME, content_type="image/jpeg")
            async with (
                aiohttp.ClientSession() as session,
                session.post(self.url, data=form, headers=self.headers) as answer,
            ):
                return Answer(answer.status, answer.headers, await answer.text())

        self.assert_understood(lambda content: asyncio.run(send(content)))

    def make_form(self, content, boundary, *headers):
        """Return a form whose file has these additional headers."""
        lines = [f'Content-Disposition: form-data; name="picture"; filename="{NAME}"', *headers]
        field = f'Content-Disposition: form-data; name="id"\r\n\r\n{self.dish.pk}'
        start = "\r\n".join([f"--{boundary}", field, f"--{boundary}", *lines, "", ""])
        return start.encode() + content + f"\r\n--{boundary}--\r\n".encode()

    @requires("wget")
    def test_wget_can_upload(self):
        def send(content):
            body = self.folder / "body"
            body.write_bytes(self.make_form(content, "wget", "Content-Type: image/jpeg"))
            given = {**self.headers, "Content-Type": "multipart/form-data; boundary=wget"}
            headers = [f"--header={name}: {value}" for name, value in given.items()]
            options = ["-qS", "--no-proxy", "--content-on-error", "-O", "-", f"--post-file={body}"]
            done = subprocess.run(
                ["wget", *options, *headers, self.url], check=False, capture_output=True
            )
            [status] = re.findall(rb"HTTP/1\.1 (\d+)", done.stderr)
            return Answer(int(status), {}, done.stdout.decode())

        self.assert_understood(send)

    def send_form(self, body, boundary):
        connection = connect(self.http)
        self.addCleanup(connection.close)
        own = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        connection.request("POST", "/upload", body, {**self.headers, **own})
        return get_answer(connection)

    def test_android_can_upload(self):
        boundary = "9d3c2b5e-0f5c-4f61-9f0e-2f6d8f6b7a11"

        def send(content):
            headers = ("Content-Type: image/jpeg", f"Content-Length: {len(content)}")
            return self.send_form(self.make_form(content, boundary, *headers), boundary)

        self.assert_understood(send)

    def test_ios_can_upload(self):
        boundary = "Boundary-6E1B4C0A-5D0C-4F4B-8B7E-3C1B0C9F2D11"

        self.assert_understood(
            lambda content: self.send_form(self.make_form(content, boundary), boundary)
        )
