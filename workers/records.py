"""`dataclass(slots=True)` as of the standard library, without the code that it writes and compiles for each class.

That code costs 0.5 ms a class, and a start makes more than a hundred of them: most of the time until a worker is forked
would be theirs. Here the methods are the same for all classes and look up the fields when they are called, which takes
some microseconds. So this is for values that are made a few times a second at most; what is made for each connection or
request is the library's, or a class written out.

The fields are the library's own, made when they are first asked for, so `fields()`, `replace()`, `asdict()` and `match`
work as ever.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NoReturn

__all__ = ["dataclass"]

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(
        *,
        slots: Literal[True],  # noqa: ARG001 - the library's is told the same, and type checkers look at that one
        frozen: bool = False,
        eq: bool = True,
        kw_only: bool = False,
    ) -> Callable[[type], type]:
        """Return what makes a dataclass of a class; the arguments are those of `dataclasses.dataclass`."""

        def make(cls: type) -> type:
            return _made(cls, _Shape(cls, kw_only), frozen, eq)

        return make


@dataclasses.dataclass(init=False, repr=False, eq=False)
class _Model:
    """What the library looks for in a base class is taken from here."""


_PARAMS: Any = _Model.__dataclass_params__  # type: ignore[attr-defined]  # it is not documented, and the same for all


class _Shape:
    """The fields of a class; as its attribute `__dataclass_fields__`, what the library has there.

    Args:
        cls: as it is written.
        kw_only: whether no field is positional.
    """

    def __init__(self, cls: type, kw_only: bool) -> None:
        own = inspect.get_annotations(cls).items()  # text, by `from __future__ import annotations`
        self.own = tuple(name for name, kind in own if not kind.startswith("ClassVar"))
        inherited: tuple[str, ...] = getattr(cls, "__match_args__", ())
        self.positional = (*inherited, *(name for name in self.own if not kw_only and not _is_named(cls, name)))
        self._cls = cls
        self._kw_only = kw_only
        self._fields: dict[str, dataclasses.Field[Any]] | None = None

    def __get__(self, instance: object, owner: type) -> dict[str, dataclasses.Field[Any]]:
        return self.fields

    @property
    def fields(self) -> dict[str, dataclasses.Field[Any]]:
        """By name."""
        if self._fields is None:
            made: Any = dataclasses.dataclass(init=False, repr=False, eq=False, kw_only=self._kw_only)(self._cls)
            self._fields = {one.name: one for one in dataclasses.fields(made)}
            self._defaults = {
                name: one.default for name, one in self._fields.items() if one.default is not dataclasses.MISSING
            }
            self._factories = {
                name: one.default_factory
                for name, one in self._fields.items()
                if one.default_factory is not dataclasses.MISSING
            }
            self._compared = tuple(name for name, one in self._fields.items() if one.compare)
        return self._fields

    def fill(self, made: object, args: tuple[object, ...], keywords: dict[str, object]) -> None:
        """Give a new object its fields.

        Raises:
            TypeError: they are not those that it has.
        """
        fields = self.fields
        given = dict(zip(self.positional, args, strict=False))
        values = {**self._defaults, **given, **keywords}
        for name in self._factories.keys() - values.keys():
            values[name] = self._factories[name]()
        if len(given) < len(args) or not given.keys().isdisjoint(keywords) or values.keys() != fields.keys():
            wrong = sorted(values.keys() ^ fields.keys()) or sorted(given.keys() & keywords.keys())
            raise TypeError(f"{type(made).__name__}() is given too much or too little: {wrong or args}")
        for name, value in values.items():
            object.__setattr__(made, name, value)

    def compared(self, one: object) -> tuple[object, ...]:
        """Return the values of the fields that count when two objects are compared."""
        return tuple(getattr(one, name) for name in self.fields and self._compared)

    def shown(self, one: object) -> str:
        """Return an object as text."""
        values = [f"{name}={getattr(one, name)!r}" for name, field in self.fields.items() if field.repr]
        return f"{type(one).__qualname__}({', '.join(values)})"


def _is_named(cls: type, name: str) -> bool:
    default = cls.__dict__.get(name)
    return isinstance(default, dataclasses.Field) and default.kw_only is True


def _made(cls: type, shape: _Shape, frozen: bool, eq: bool) -> type:
    """Make the class anew, with slots and methods."""
    finish = getattr(cls, "__post_init__", None)

    def __init__(self: object, *args: object, **keywords: object) -> None:  # noqa: N807 - it becomes one
        shape.fill(self, args, keywords)
        if finish is not None:
            finish(self)

    def __repr__(self: object) -> str:  # noqa: N807
        return shape.shown(self)

    def __eq__(self: object, other: object) -> bool:  # noqa: N807
        return shape.compared(self) == shape.compared(other) if type(other) is type(self) else NotImplemented

    def __hash__(self: object) -> int:  # noqa: N807
        return hash(shape.compared(self))

    def __getstate__(self: object) -> list[object]:  # noqa: N807 - for copy and pickle, which know no frozen slots
        return [getattr(self, name) for name in shape.fields]

    def __setstate__(self: object, state: list[object]) -> None:  # noqa: N807
        for name, value in zip(shape.fields, state, strict=True):
            object.__setattr__(self, name, value)

    methods: dict[str, object] = {
        "__init__": __init__, "__repr__": __repr__, "__getstate__": __getstate__, "__setstate__": __setstate__
    }  # fmt: skip
    if eq:
        methods |= {"__eq__": __eq__, "__hash__": __hash__ if frozen else None}
    if frozen:
        methods |= {"__setattr__": _refuse_to_set, "__delattr__": _refuse_to_delete}
    left_out = ("__dict__", "__weakref__", *shape.own)
    made = type(cls)(
        cls.__name__,
        cls.__bases__,
        {
            **methods,
            **{name: value for name, value in cls.__dict__.items() if name not in left_out},
            "__slots__": shape.own,
            "__match_args__": shape.positional,
            "__dataclass_fields__": shape,
            "__dataclass_params__": _PARAMS,
        },
    )
    made.__qualname__ = cls.__qualname__
    return made


def _refuse_to_set(_: object, name: str, _value: object) -> NoReturn:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_to_delete(_: object, name: str) -> NoReturn:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")
