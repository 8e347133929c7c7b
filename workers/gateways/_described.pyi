from typing import Any

from preforkd.workers.http.message import HttpVersion, RequestMessage

def setup(request_class: type[RequestMessage], version: HttpVersion) -> None: ...
def scope(
    template: dict[str, Any],
    state: dict[str, Any],
    extensions: dict[str, Any],
    message: RequestMessage,
    client: tuple[str, int | None] | None,
) -> dict[str, Any] | None: ...
def environ(
    base: dict[str, Any], variables: dict[bytes, str], message: RequestMessage, client: tuple[str, int] | None
) -> dict[str, Any] | None: ...
