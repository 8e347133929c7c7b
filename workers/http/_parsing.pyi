from collections.abc import Iterable

from preforkd.workers.http.message import HttpVersion, RequestMessage

def setup(
    request_class: type[RequestMessage],
    version: HttpVersion,
    meant: Iterable[bytes],
    telling: Iterable[bytes],
    ids: Iterable[bytes],
    plain: Iterable[bytes],
    methods: dict[bytes, str],
) -> None: ...
def parse_head(data: bytes, limit_headers: int, limit_body: int, limit_size: int) -> RequestMessage | None: ...
