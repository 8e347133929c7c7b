"""What a Flask application answers: JSON, with its parameters read."""

from __future__ import annotations

from flask import Flask, request
from flask.typing import ResponseReturnValue

app = Flask(__name__)


@app.get("/items")
def list_items() -> ResponseReturnValue:
    return {"page": request.args.get("page", type=int), "sort": request.args["sort"], "items": []}
