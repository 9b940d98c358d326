import os
from pathlib import Path

from flask import Flask, request

STORE = Path(os.environ["STORE"])

application = Flask(__name__)


@application.post("/upload")
def upload():
    request.files["picture"].save(STORE / request.args["X-Progress-ID"])
    return "ok"
