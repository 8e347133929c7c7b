"""A Flask app with a path for each behaviour that the tests of frameworks need."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Iterator
from typing import Any

from flask import Flask, Response, request, send_file, stream_with_context

app = Flask(__name__)


@app.get("/")
def hello() -> str:
    return "Hello"


@app.post("/form")
def form() -> dict[str, Any]:
    return {"fields": request.form.to_dict(), "files": {name: len(file.read()) for name, file in request.files.items()}}


@app.post("/json")
def echo() -> Any:
    return request.get_json()


@app.put("/upload")
def upload() -> dict[str, int]:
    size = 0
    while data := request.stream.read(65536):
        size += len(data)
    return {"size": size}


@app.get("/stream/<int:count>")
def stream(count: int) -> Response:
    def parts() -> Iterator[str]:
        for number in range(count):
            yield f"{number} {request.path}\n"
            time.sleep(0.01)

    return Response(stream_with_context(parts()), mimetype="text/plain")


@app.get("/coroutine")
async def coroutine() -> str:
    await asyncio.sleep(0)
    return "awaited"


@app.get("/file")
def file() -> Response:
    return send_file(__file__, mimetype="text/x-python", conditional=True)


@app.get("/memory")
def memory() -> Response:
    return send_file(io.BytesIO(b"x" * 100_000), mimetype="application/octet-stream")


@app.get("/events")
def ticking_events() -> Response:
    @stream_with_context
    def ticks() -> Iterator[str]:
        try:
            while True:
                yield "data: first\n\n"
                time.sleep(0.02)
        finally:
            print(f"{request.path} has ended", flush=True)

    return Response(ticks(), mimetype="text/event-stream", headers={"Cache-Control": "no-store"})


@app.get("/fail")
def fail() -> str:
    raise RuntimeError("a bug in the app")


@app.get("/café")
def unicode() -> Response:
    return Response(request.path, headers={"X-Path": "caf\xe9"})


@app.get("/cookies")
def cookies() -> Response:
    response = Response(f"{request.cookies.get('a')} {request.cookies.get('b')}")
    response.set_cookie("one", "1")
    response.set_cookie("two", "2")
    return response


@app.get("/url")
def url() -> str:
    return request.url
