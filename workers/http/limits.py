"""The limits of a connection: one immutable object, shared by all connections that were given the same."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache


@dataclass(frozen=True)  # the library's, for it keeps what it has reckoned
class Limits:
    """What a client may cost; sizes in bytes, times in seconds, 0: no limit.

    The names are those of the daemon's options. `timeout` (the head) is the protocol's own argument and the seed's.
    """

    limit_request_line: int = 8190
    limit_headers: int = 100
    limit_header_size: int = 65536
    limit_body: int = 0
    body_timeout: float = 60
    write_timeout: float = 60
    request_timeout: float = 0
    disconnect_timeout: float = 0
    keep_alive_requests: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"{field.name} must be a number, not {value!r}")
            if not value >= 0:
                raise ValueError(f"{field.name} must not be negative: {value!r}")

    @cached_property
    def short_head(self) -> int:
        """Bytes up to which a head is within both limits of its size, whatever is in it."""
        return int(min(size for size in (self.limit_header_size, self.limit_request_line, 1 << 30) if size))


DEFAULT_LIMITS = Limits()
LIMIT_NAMES = frozenset(field.name for field in fields(Limits))


@lru_cache(maxsize=64)
def _shared(items: tuple[tuple[str, float], ...]) -> Limits:
    _check_names(name for name, _ in items)
    return Limits(**dict(items))  # type: ignore[arg-type]  # mypy takes all values for the type of one field


def _check_names(names: Iterable[str]) -> None:
    for name in names:
        if name not in LIMIT_NAMES:
            raise TypeError(f"ServerHttpProtocol got an unexpected keyword argument {name!r}")


def limits_from(arguments: dict[str, float]) -> Limits:
    """Return the `Limits` for these keyword arguments.

    Raises:
        TypeError: a keyword is not the name of a limit, or its value is not a number.
        ValueError: a value is negative.
    """
    if not arguments:
        return DEFAULT_LIMITS
    try:
        return _shared(tuple(arguments.items()))
    except TypeError:
        _check_names(arguments)  # a value that cannot be looked up must not hide that
        raise
