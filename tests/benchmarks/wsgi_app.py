"""The WSGI app that the servers are compared with."""

from __future__ import annotations

from typing import Any

BODY = b"<h1>It Works!</h1>"


def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Hello, as a framework would answer: with its length; the body of a request is read before."""
    if environ["REQUEST_METHOD"] == "POST":
        environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    start_response("200 OK", [("Content-Type", "text/html"), ("Content-Length", str(len(BODY)))])
    return [BODY]
