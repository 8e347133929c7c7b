"""A Falcon app with a path for each behaviour that the tests of frameworks need."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import falcon


class Hello:
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.text = "Hello"


class Form:
    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.media = {"fields": req.get_media()}


class Json:
    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.media = req.get_media()


class Upload:
    def on_put(self, req: falcon.Request, resp: falcon.Response) -> None:
        size = 0
        while data := req.bounded_stream.read(65536) if req.content_length is not None else req.stream.read(65536):
            size += len(data)
        resp.media = {"size": size}


class Stream:
    def on_get(self, req: falcon.Request, resp: falcon.Response, count: int) -> None:
        def parts() -> Iterator[bytes]:
            for number in range(count):
                yield f"{number} {req.path}\n".encode()
                time.sleep(0.01)

        resp.content_type = "text/plain"
        resp.stream = parts()


class File:
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        path = Path(__file__)
        resp.content_type = "text/x-python"
        resp.set_stream(path.open("rb"), path.stat().st_size)


class Fail:
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        raise RuntimeError("a bug in the app")


app = falcon.App()
app.add_route("/", Hello())
app.add_route("/form", Form())
app.add_route("/json", Json())
app.add_route("/upload", Upload())
app.add_route("/stream/{count:int}", Stream())
app.add_route("/file", File())
app.add_route("/fail", Fail())
