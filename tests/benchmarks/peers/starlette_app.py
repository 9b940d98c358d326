import os

import anyio
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

STORE = anyio.Path(os.environ["STORE"])


async def upload(request):
    async with request.form() as form:
        path = STORE / request.query_params["X-Progress-ID"]
        await path.write_bytes(await form["picture"].read())
    return PlainTextResponse("ok")


application = Starlette(routes=[Route("/upload", upload, methods=["POST"])])
