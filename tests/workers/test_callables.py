"""What a call runs is known where it ends in Python code, and nothing is said of anything else."""

from __future__ import annotations

import functools
import inspect
import types
from typing import Any

import pytest

from preforkd.workers.callables import run_of


def three(one: int, two: int, three: int = 0) -> None: ...


@functools.wraps(three)
def wraps_three(*args: Any) -> None: ...


def signed(one: int) -> None: ...


signed.__signature__ = inspect.signature(three)  # type: ignore[attr-defined]  # that is how it is said


def keyword(one: int, *, more: int) -> None: ...


def keyword_default(one: int, *, more: int = 1) -> None: ...


class Class:
    def __init__(self, one: int) -> None: ...

    def __call__(self, one: int, two: int) -> None: ...

    def method(self, one: int) -> None: ...

    @classmethod
    def of_class(cls, one: int) -> None: ...

    @staticmethod
    def static(one: int) -> None: ...


class ClassCall:
    @classmethod
    def __call__(cls, one: int) -> None: ...


class Nothing: ...


class Subclass(Class):
    pass


@pytest.mark.parametrize(
    ("found", "takes"),
    [
        (three, [2, 3]),
        (wraps_three, [0, 1, 2, 3]),
        (signed, [1]),
        (keyword, []),
        (keyword_default, [1]),
        (functools.partial(keyword, more=1), [1]),
        (functools.partial(three, 1), [1, 2]),
        (functools.partial(functools.partial(three, 1), 2), [0, 1]),
        (functools.partial(Class(1)), [2]),
        (Class, [1]),
        (Subclass, [1]),
        (Nothing, [0]),
        (Class(1), [2]),
        (Class(1).method, [1]),
        (Class(1).of_class, [1]),
        (Class.static, [1]),
        (ClassCall(), [1]),
        (Class.method, [2]),
        (types.MethodType(Class(1), 1), [1]),
    ],
)
def test_the_arguments_are_those_of_the_function_that_runs(found: object, takes: list[int]) -> None:
    run = run_of(found)
    assert run is not None
    assert [count for count in range(4) if run.takes(count)] == takes


class Meta(type):
    def __call__(cls, *args: Any) -> Any: ...


class OfMeta(metaclass=Meta):
    pass


class New:
    def __new__(cls) -> Any: ...


@pytest.mark.parametrize("found", [min, dict, OfMeta, New, functools.partial(min), "".join, 5, None, Nothing()])
def test_nothing_is_said_of_what_is_not_known(found: object) -> None:
    assert run_of(found) is None


async def coroutine() -> None: ...


async def async_generator() -> Any:
    yield


def generator() -> Any:
    yield


@types.coroutine
def generator_as_coroutine() -> Any:
    yield


@pytest.mark.parametrize(
    ("found", "gives"),
    [
        (coroutine, "coroutine"),
        (functools.partial(coroutine), "coroutine"),
        (async_generator, "async generator"),
        (generator, "generator"),
        (generator_as_coroutine, ""),
        (functools.wraps(coroutine)(lambda: None), ""),
        (three, ""),
        (Class, ""),
    ],
)
def test_what_it_gives_is_known_from_its_code(found: object, gives: str) -> None:
    run = run_of(found)
    assert run is not None
    assert run.gives == gives
