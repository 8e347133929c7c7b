from collections.abc import Callable

from preforkd.workers.http.message import HttpVersion, RequestMessage

class Parts:
    def __init__(
        self,
        request_class: type[RequestMessage],
        version: HttpVersion,
        wanted: tuple[tuple[str, bytes], ...],
        pure: Callable[[RequestMessage | None], tuple[str, ...]],
    ) -> None: ...
    def __call__(self, message: RequestMessage | None, /) -> tuple[str, ...]: ...
