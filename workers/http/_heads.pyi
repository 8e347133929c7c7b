from typing import Any

from preforkd.workers.http.clock import Clock
from preforkd.workers.http.message import HttpVersion

def setup(
    clock: Clock,
    plain_lines: dict[int, bytes],
    version: HttpVersion,
    done: object,
    active: object,
    fields: dict[str, Any],
) -> None: ...
def learn(cls: type) -> dict[str, Any]: ...
