"""What the admin process answers to which path."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol
from urllib.parse import parse_qsl

from preforkd.workers.admin.control import CANCEL, EXAMINATION, STATUS, ForbiddenError, WrongError, peer_of
from preforkd.workers.admin.metrics import MissingError
from preforkd.workers.admin.readiness import alive, ready_workers, unready
from preforkd.workers.examining import KINDS
from preforkd.workers.http.errors import HttpProcessingError
from preforkd.workers.http.message import RequestMessage
from preforkd.workers.http.payload import PayloadStream
from preforkd.workers.http.protocol import ServerHttpProtocol
from preforkd.workers.http.response import Response

if TYPE_CHECKING:
    from preforkd.workers.admin.control import Questions
    from preforkd.workers.admin.settings import AdminSettings
    from preforkd.workers.admin.snapshot import Snapshot

PAGE: Final = Path(__file__).with_name("page.html")
JSON: Final = "application/json"
TEXT: Final = "text/plain; charset=utf-8"
_SECURITY: Final = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:",
    ),
)


class Admin(Protocol):
    """What its connections ask of the admin process, see `AdminServer`."""

    @property
    def settings(self) -> AdminSettings:
        """What it was told."""

    @property
    def questions(self) -> Questions:
        """Those to the master."""

    @property
    def examined(self) -> int:
        """The ident of the last examination."""

    def examination(self, ident: int) -> dict[str, Any]:
        """Return how far that one has come; 0: the last one."""

    def cancel(self, ident: int) -> None:
        """Nobody waits for that one any more: it ends now, with what it has."""

    def look(self) -> Snapshot:
        """Read the scoreboard."""

    def status(self) -> dict[str, Any]:
        """Return all that is known."""

    def series(self, since: float) -> dict[str, Any]:
        """Return the last minutes; `since`: only what is newer, seconds since the epoch."""

    def metrics(self, accept: str) -> tuple[str, bytes]:
        """Return the type and the text of all metrics.

        Args:
            accept: the field of the request.
        """


class AdminProtocol(ServerHttpProtocol):
    """A connection of the admin process.

    Attributes:
        admin: whose it is; set in a subclass that is made at its start.
    """

    admin: ClassVar[Admin]

    async def handle_request(self, message: RequestMessage, payload: PayloadStream) -> None:  # noqa: ARG002 - of the seed
        """Answer what is asked about the daemon."""
        path = message.path.partition("?")[0]
        self.keep_alive(True)
        if path.startswith("/control/"):
            await self._control(message)
            return
        page = PAGES.get(path)
        if page is None:
            raise HttpProcessingError(404, f"there is {', '.join(PAGES)}")
        if message.method not in ("GET", "HEAD"):
            raise HttpProcessingError(405, headers={"Allow": "GET, HEAD"})
        await page(self, message)

    async def _control(self, message: RequestMessage) -> None:
        verb = message.path.removeprefix("/control/").partition("?")[0]
        allowed = "GET" if verb == EXAMINATION else "POST"
        if message.method != allowed:
            raise HttpProcessingError(405, headers={"Allow": allowed})
        sock = self.transport and self.transport.get_extra_info("socket")
        try:
            by = peer_of(sock, self.admin.settings.owner)
            if verb in (EXAMINATION, CANCEL):
                await self._examination(message, cancel=verb == CANCEL)
                return
            answer = await self.admin.questions.ask(message.path, by)
        except ForbiddenError as exc:
            await self._answer_json(message, {"version": 1, "result": "forbidden", "text": str(exc)}, 403)
        except WrongError as exc:
            await self._answer_json(message, {"version": 1, "result": "wrong", "text": str(exc)}, 400)
        else:
            values = asdict(answer)
            del values["ident"]
            if verb in KINDS and answer.result in ("accepted", "done"):
                values["examination"] = self.admin.examined
            await self._answer_json(message, {"version": 1, **values}, STATUS[answer.result])

    async def _examination(self, message: RequestMessage, *, cancel: bool) -> None:
        ident = dict(parse_qsl(message.path.partition("?")[2])).get("ident", "0")
        if not (ident.isascii() and ident.isdigit() and int(ident) < 1 << 63):
            raise WrongError("ident is the number that the answer has called examination")
        if cancel:
            self.admin.cancel(int(ident))
        await self._answer_json(message, self.admin.examination(int(ident)))

    async def live(self, message: RequestMessage) -> None:
        """Whether the master's loop turns."""
        lives = alive(self.admin.look())
        await self._answer(message, TEXT, b"alive\n" if lives else b"the master hangs\n", 200 if lives else 503)

    async def ready(self, message: RequestMessage) -> None:
        """Whether traffic may come."""
        snapshot = self.admin.look()
        reasons = unready(snapshot)
        values = {
            "ready": not reasons,
            "reasons": reasons,
            "workers_ready": ready_workers(snapshot),
            "workers_wanted": snapshot.wanted,
        }
        await self._answer_json(message, values, 503 if reasons else 200)

    async def status(self, message: RequestMessage) -> None:
        """All that is known."""
        await self._answer_json(message, self.admin.status())

    async def series(self, message: RequestMessage) -> None:
        """The last minutes."""
        since = dict(parse_qsl(message.path.partition("?")[2])).get("since", "0")
        try:
            await self._answer_json(message, self.admin.series(float(since)))
        except ValueError as exc:
            raise HttpProcessingError(400, "write the seconds since the epoch: /series?since=1795805821.5") from exc

    async def page(self, message: RequestMessage) -> None:
        """The page for people."""
        await self._answer(message, "text/html; charset=utf-8", PAGE.read_bytes())

    async def metrics(self, message: RequestMessage) -> None:
        """For Prometheus."""
        try:
            kind, body = self.admin.metrics(message.headers.get("Accept", ""))
        except MissingError as exc:
            raise HttpProcessingError(501, str(exc)) from exc
        await self._answer(message, kind, body)

    async def _answer_json(self, message: RequestMessage, values: dict[str, Any], status: int = 200) -> None:
        await self._answer(message, JSON, json.dumps(values, ensure_ascii=False).encode() + b"\n", status)

    async def _answer(self, message: RequestMessage, kind: str, body: bytes, status: int = 200) -> None:
        response = Response(self.writer, status, http_version=message.version)
        response.add_header("Content-Type", kind)
        response.add_header("Content-Length", str(len(body)))
        response.add_headers(*_SECURITY)
        response.send_headers()
        response.write(body)
        await response.write_eof()


PAGES: Final[dict[str, Callable[[AdminProtocol, RequestMessage], Awaitable[None]]]] = {
    "/": AdminProtocol.page,
    "/livez": AdminProtocol.live,
    "/readyz": AdminProtocol.ready,
    "/metrics": AdminProtocol.metrics,
    "/status": AdminProtocol.status,
    "/series": AdminProtocol.series,
}
