"""`preforkctl health`, for HEALTHCHECK and the like: it is asked every few seconds, beside the app, on the same CPUs.

So nothing is imported here that a plain interpreter has not got, but sockets: not `click`, not even `typing`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from preforkd.daemon.asking import UnreachableError, ask
from preforkd.daemon.finding import NotFoundError, addresses

TIMEOUT = 3.0
"""Seconds for the answer, unless --timeout says otherwise."""
UNHEALTHY = 1


class Question:
    """What is asked.

    Attributes:
        admin, pid_file, environ: see `addresses()`.
        live: whether the daemon lives is enough; else it has to be ready.
        timeout: seconds for the answer.
    """

    __slots__ = ("admin", "environ", "live", "pid_file", "timeout")

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.admin: list[str] = []
        self.pid_file = ""
        self.environ = environ
        self.live = False
        self.timeout = TIMEOUT


def read(arguments: Sequence[str], environ: Mapping[str, str]) -> Question | None:
    """Return what these arguments ask, None when they are not `health` in its plain form: then click reads them.

    Args:
        arguments: of the command.
        environ: of the process.
    """
    if "health" not in arguments or "_PREFORKCTL_COMPLETE" in environ:
        return None
    question = Question(environ)
    names = 0
    words = iter(arguments)
    for word in words:
        option, equals, value = word.partition("=")
        if word == "health":
            names += 1
        elif word == "--live":
            question.live = True
        elif option in ("--admin", "--pid", "--timeout"):
            value = value if equals else next(words, "")
            if not _take(question, option, value):
                return None
        else:
            return None
    return question if names == 1 else None


def _take(question: Question, option: str, value: str) -> bool:
    if option == "--admin":
        question.admin.append(value)
    elif option == "--pid":
        question.pid_file = value
    elif value.isdigit() and int(value):
        question.timeout = float(value)
    else:
        return False
    return bool(value)


def run(question: Question) -> int:
    """Ask, and say how it is; returns the exit code: 0 healthy, 1 not, as Docker reads it."""
    try:
        where = addresses(question.admin, question.pid_file, question.environ)
        status, body = ask(where, "GET", "/livez" if question.live else "/readyz", question.timeout)
    except (NotFoundError, UnreachableError) as exc:
        print(f"unhealthy: {exc}", file=sys.stderr)
        return UNHEALTHY
    if status == 200:
        print("alive" if question.live else "ready")
        return 0
    print(f"unhealthy: {_why(body)}", file=sys.stderr)
    return UNHEALTHY


def _why(body: bytes) -> str:
    import json

    try:
        return "; ".join(json.loads(body)["reasons"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace").strip()  # of /livez
