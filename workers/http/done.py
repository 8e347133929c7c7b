"""What is awaited where there is nothing to wait for."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


class _Done(Coroutine[None, None, None]):
    """An awaitable that is done, without a coroutine.

    It passes for a coroutine with those who insist on one, as `asyncio.create_task()` does.
    """

    __slots__ = ()

    # An empty iterator serves `await` as well, and this one is made without a call of Python code.
    __await__: Callable[[], Generator[None, None, None]] = ().__iter__  # type: ignore[assignment]

    def send(self, value: None) -> NoReturn:  # noqa: ARG002 -- a coroutine's signature
        """End at once."""
        raise StopIteration

    def throw(self, *args: Any) -> NoReturn:
        """End with an exception, as a coroutine that has not begun."""
        exc = args[1] if len(args) > 1 and args[1] is not None else args[0]
        raise exc

    def close(self) -> None:
        """Nothing is left to be done."""


DONE = _Done()
