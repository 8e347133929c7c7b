"""The HTML page that answers an error, and the fields of its head."""

from __future__ import annotations

import traceback
from collections.abc import Mapping

from preforkd.workers.http.errors import BadRequestError, HeaderPairs
from preforkd.workers.http.fields import PHRASES

FINAL_STATUSES = range(200, 1000)  # what may be answered; another code in an error is an error of the handler
_FRAMING = ("content-length", "transfer-encoding")
_REFERENCES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;"}  # the first one first
_PAGE = """<html>
  <head>
    <title>{status} {phrase}</title>
  </head>
  <body>
    <h1>{status} {phrase}</h1>
    {text}
  </body>
</html>
"""


def page_of(status: int, reason: str | None, exc: BaseException | None) -> bytes:
    """Return the page.

    Args:
        status: the status code.
        reason: text instead of the standard phrase.
        exc: to be shown with its traceback, unless it is the client's own bad request.
    """
    phrase = PHRASES.get(status, "Error")
    text = _escaped(reason or phrase)
    if exc is not None and not isinstance(exc, BadRequestError):
        text += f"<br><h2>Traceback:</h2>\n<pre>{_escaped(''.join(traceback.format_exception(exc)))}</pre>"
    return _PAGE.format(status=status, phrase=_escaped(phrase), text=text).encode("utf-8", "backslashreplace")


def _escaped(text: str) -> str:
    """As `html.escape()`, whose module has a table of all entities and takes a worker's start 1 ms to import."""
    for character, reference in _REFERENCES.items():
        text = text.replace(character, reference)
    return text


def fields_of(page: bytes, headers: HeaderPairs | None) -> list[tuple[str, str]]:
    """Return the fields of the page's head: the caller's, and what they leave to be said.

    The framing is the page's, whatever the headers of an error say.
    """
    given = [
        (name, str(value) if isinstance(value, int) else value)
        for name, value in (headers.items() if isinstance(headers, Mapping) else headers or ())
        if name.lower() not in _FRAMING
    ]
    if not any(name.lower() == "content-type" for name, _ in given):
        given.insert(0, ("Content-Type", "text/html; charset=utf-8"))
    return [("Content-Length", str(len(page))), *given]
