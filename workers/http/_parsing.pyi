from collections.abc import Iterable

from preforkd.workers.http.message import Fields, HttpVersion, RequestMessage

def setup(
    request_class: type[RequestMessage],
    version: HttpVersion,
    meant: Iterable[bytes],
    telling: Iterable[bytes],
    ids: Iterable[bytes],
    plain: Iterable[bytes],
    methods: dict[bytes, str],
) -> None: ...
def parse_head(head: bytes, limit_headers: int, limit_body: int) -> RequestMessage | None: ...
def add_fields(environ: dict[str, object], fields: Fields) -> None: ...
