"""What apps are told of a request, in both forms, for the tests that compare them."""

from __future__ import annotations

import asyncio
import io
from typing import Any

from preforkd.workers.gateways.asgi.scope import Templates
from preforkd.workers.gateways.wsgi.environ import EnvironSource
from preforkd.workers.http import compiled
from preforkd.workers.http.message import RequestMessage

CLIENT = ("192.0.2.1", 40000)
SERVER = ("192.0.2.2", 8000)


class Both:
    """The two forms of both gateways.

    Args:
        root_path: where the app is mounted.
        state: what the app's lifespan has left.
    """

    def __init__(self, root_path: str = "", state: dict[str, Any] | None = None) -> None:
        before = compiled.form()
        draining, errors = asyncio.Event(), io.StringIO()
        self.templates: list[Templates] = []
        self.environs: list[EnvironSource] = []
        for form in ("pure", "compiled"):
            compiled.choose(form)
            self.templates.append(Templates(SERVER, None, root_path, draining, {} if state is None else state, None))
            base = {"SERVER_NAME": "a", "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.errors": errors}
            self.environs.append(EnvironSource(base, root_path))
        compiled.choose(before)

    def scopes(self, message: RequestMessage, client: tuple[str, int] | None = CLIENT) -> list[dict[str, Any]]:
        """Return both."""
        return [one.http(message, client) for one in self.templates]

    def both_environs(self, message: RequestMessage, client: tuple[str, int] | None = CLIENT) -> list[dict[str, Any]]:
        """Return both."""
        return [one.environ(message, client) for one in self.environs]

    def agree(self, message: RequestMessage, client: tuple[str, int] | None = CLIENT) -> bool:
        """Whether they say the same, in values of the same types."""
        return all(
            one == other and {key: type(one[key]) for key in one} == {key: type(other[key]) for key in other}
            for one, other in (self.scopes(message, client), self.both_environs(message, client))
        )
