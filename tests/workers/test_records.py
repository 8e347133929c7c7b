"""Dataclasses that are made without generated code do what those of the library do."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from dataclasses import FrozenInstanceError, asdict, astuple, field, fields, is_dataclass, replace
from typing import Any, ClassVar

import pytest

from preforkd.workers import records


def make(dataclass: Any) -> dict[str, Any]:
    """Return classes that this decorator has made."""

    @dataclass(frozen=True, slots=True)
    class Base:
        """What both of the next have."""

        named: int = field(default=7, kw_only=True, compare=False, repr=False)

    @dataclass(frozen=True, slots=True)
    class Value(Base):
        """A value."""

        number: int
        text: str = "x"
        parts: dict[str, int] = field(default_factory=dict)
        common: ClassVar[str] = "c"

    @dataclass(frozen=True, slots=True)
    class Other(Base):
        """The same fields, and another value."""

        number: int
        text: str = "x"
        parts: dict[str, int] = field(default_factory=dict)

    @dataclass(frozen=True, slots=True)
    class Empty:
        """Nothing."""

    @dataclass(slots=True)
    class Open:
        """It may change, so it has no hash."""

        number: int = 0

        def __post_init__(self) -> None:
            self.number += 1

    @dataclass(frozen=True, slots=True, eq=False)
    class Single:
        """It is equal to itself alone."""

        number: int = 0

        def __str__(self) -> str:
            return "single"

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Named:
        """No field is positional."""

        number: int

    return {one.__name__: one for one in (Base, Value, Other, Empty, Open, Single, Named)}


BOTH = [pytest.param(make(dataclasses.dataclass), id="library"), pytest.param(make(records.dataclass), id="ours")]
Classes = dict[str, Any]
both = pytest.mark.parametrize("of", BOTH)


@both
def test_fields_are_given_by_position_by_name_or_by_default(of: Classes) -> None:
    value = of["Value"](1, "y", named=2)
    assert (value.number, value.text, value.parts, value.named, value.common) == (1, "y", {}, 2, "c")
    assert of["Value"](text="z", number=3).text == "z"
    assert of["Named"](number=4).number == 4
    assert of["Value"](1).parts is not of["Value"](1).parts


@both
@pytest.mark.parametrize(
    "call",
    [
        lambda of: of["Value"](),
        lambda of: of["Value"](1, number=1),
        lambda of: of["Value"](1, other=1),
        lambda of: of["Value"](1, "y", {}, 2),
        lambda of: of["Named"](1),
        lambda of: of["Empty"](1),
    ],
)
def test_other_fields_than_there_are_is_a_type_error(of: Classes, call: Callable[[Classes], object]) -> None:
    with pytest.raises(TypeError):
        call(of)


@both
def test_values_are_equal_when_class_and_fields_are(of: Classes) -> None:
    value = of["Value"]
    assert value(1, named=1) == value(1, named=2)
    assert value(1) != value(2)
    assert value(1) != of["Other"](1)
    assert of["Empty"]() == of["Empty"]()
    assert of["Empty"]() != ()
    assert of["Single"]() != of["Single"]()


@both
def test_what_cannot_change_has_a_hash(of: Classes) -> None:
    assert hash(of["Value"](1, parts=frozenset(), named=1)) == hash(of["Value"](1, parts=frozenset(), named=2))
    assert len({of["Single"](), of["Single"]()}) == 2
    with pytest.raises(TypeError):
        hash(of["Open"]())


@both
def test_a_frozen_one_takes_no_other_value(of: Classes) -> None:
    value = of["Value"](1)
    with pytest.raises(FrozenInstanceError):
        value.number = 2
    with pytest.raises(FrozenInstanceError):
        del value.number
    assert value.number == 1


@both
def test_one_that_is_not_frozen_does(of: Classes) -> None:
    changed = of["Open"](1)
    changed.number += 1
    assert changed == of["Open"](2)


@both
def test_there_are_no_other_attributes(of: Classes) -> None:
    for one in (of["Value"](1), of["Open"]()):
        assert not hasattr(one, "__dict__")
        with pytest.raises((AttributeError, TypeError)):  # the library's own frozen ones raise TypeError before 3.12
            one.more = 1


@both
def test_as_text_it_says_its_fields(of: Classes) -> None:
    assert repr(of["Value"](1)).endswith("Value(number=1, text='x', parts={})")
    assert str(of["Single"]()) == "single"


@both
def test_the_functions_of_the_library_work(of: Classes) -> None:
    value = of["Value"](1, parts={"a": 1})
    assert [one.name for one in fields(value)] == [one.name for one in fields(of["Value"])]
    assert [one.name for one in fields(value)] == ["named", "number", "text", "parts"]
    assert asdict(value) == {"named": 7, "number": 1, "text": "x", "parts": {"a": 1}}
    assert astuple(of["Named"](number=1)) == (1,)
    assert replace(value, number=2) == of["Value"](2, parts={"a": 1})
    assert is_dataclass(of["Value"])
    with pytest.raises(TypeError):
        replace(value, other=2)


@both
def test_it_can_be_copied(of: Classes) -> None:
    """As apps do with their scope, in which some are."""
    value, changing = of["Value"](1, parts={"a": 1}, named=2), of["Open"](1)
    for copied in (copy.copy, copy.deepcopy):
        assert copied(value) == value
        assert copied(value).named == 2
        assert copied(changing) == changing
    assert copy.deepcopy(value).parts is not value.parts


@both
def test_a_match_takes_it_apart(of: Classes) -> None:
    Value = of["Value"]  # noqa: N806 - a pattern names a class
    match Value(1, "y", named=3):
        case Value(number, text, named=named):
            assert (number, text, named) == (1, "y", 3)
        case _:
            pytest.fail("it does not match")
    assert of["Named"].__match_args__ == ()
