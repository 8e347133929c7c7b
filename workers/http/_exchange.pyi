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
def setup_flow(
    phases: tuple[object, ...],
    new: object,
    idle: object,
    empty_payload: object,
    whole_payload: object,
    unobserved: object,
    offspring: dict[str, Any],
    enter_task: object,
    leave_task: object,
    monotonic: object,
    raising: object,
    steps_of: object,
    bytes_io: object,
    tells: int,
) -> None: ...
def learn(cls: type) -> dict[str, Any]: ...
