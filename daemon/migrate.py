"""From gunicorn.conf.py to preforkd.toml, by its syntax tree alone: nothing of it is run. Pure."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from preforkd.daemon.equivalents import HOOKS, NO_HOOKS, SETTINGS
from preforkd.daemon.foreign import KNOWN, Given, Ignored, Refused, meaning
from preforkd.daemon.options import BY_NAME
from preforkd.daemon.values import Flag

_LONGEST: Final = 80
_ARITHMETIC: Final[dict[type[ast.operator], Callable[[float, float], float]]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.FloorDiv: lambda a, b: a // b,
    ast.Div: lambda a, b: a / b,
}


class _UnreadableError(Exception):
    """What an expression is worth is known only when it is run."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A name that a gunicorn.conf.py gives a value.

    Attributes:
        name: there.
        text: of the value, as it is written.
        line: of the file.
        value: None when it is known only when the file is run.
        is_function: it is a hook.
    """

    name: str
    text: str
    line: int
    value: object = None
    is_function: bool = False


def settings(source: bytes) -> list[Setting]:
    """Read a file.

    Raises:
        SyntaxError: it is not Python.
    """
    tree = ast.parse(source)
    known: dict[str, object] = {}
    found: list[Setting] = []
    for statement in tree.body:
        found += _of_statement(statement, known)
    return found


def _of_statement(statement: ast.stmt, known: dict[str, object]) -> Iterator[Setting]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        yield Setting(statement.name, f"def {statement.name}(...)", statement.lineno, is_function=True)
    elif isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        for target in targets:
            if isinstance(target, ast.Name):
                yield _assigned(target.id, statement.value, known)
    else:  # a name that is given its value in an `if`, a loop or a `with`
        for inner in ast.walk(statement):
            if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
                known.pop(inner.id, None)
                yield Setting(inner.id, _shortened(ast.unparse(statement)), inner.lineno)


def _assigned(name: str, expression: ast.expr, known: dict[str, object]) -> Setting:
    text = _shortened(ast.unparse(expression))
    try:
        known[name] = value = _value(expression, known)
    except _UnreadableError:
        known.pop(name, None)
        return Setting(name, text, expression.lineno)
    return Setting(name, text, expression.lineno, value)


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."


def _value(node: ast.expr, known: dict[str, object]) -> object:
    """What an expression of constants is worth."""
    match node:
        case ast.Constant(value):
            return value
        case ast.Name(name) if name in known:
            return known[name]
        case ast.List(elements) | ast.Tuple(elements):
            return [_value(one, known) for one in elements]
        case ast.UnaryOp(ast.USub(), operand):
            return -_number(operand, known)
        case ast.BinOp(left, operator, right) if type(operator) in _ARITHMETIC:
            return _computed(_value(left, known), operator, _value(right, known))
        case ast.JoinedStr(parts):
            return "".join(_part(one, known) for one in parts)
        case ast.Call(ast.Name("int" | "str" as name), [argument], []):
            return _converted(name, _value(argument, known))
    raise _UnreadableError


def _number(node: ast.expr, known: dict[str, object]) -> float:
    value = _value(node, known)
    if isinstance(value, int | float):
        return value
    raise _UnreadableError


def _computed(left: object, operator: ast.operator, right: object) -> object:
    if isinstance(left, str) and isinstance(right, str) and isinstance(operator, ast.Add):
        return left + right
    if isinstance(left, int | float) and isinstance(right, int | float):
        try:
            return _ARITHMETIC[type(operator)](left, right)
        except (ArithmeticError, ValueError):
            raise _UnreadableError from None
    raise _UnreadableError


def _part(node: ast.expr, known: dict[str, object]) -> str:
    if isinstance(node, ast.FormattedValue):
        if node.format_spec is not None or node.conversion != -1:
            raise _UnreadableError
        return str(_value(node.value, known))
    return str(_value(node, known))


def _converted(name: str, value: object) -> object:
    try:
        return int(str(value)) if name == "int" else str(value)
    except ValueError:
        raise _UnreadableError from None


# What it is here


def as_toml(source: bytes, name: str) -> str:
    """Return a preforkd.toml that does what a gunicorn.conf.py does; what could not be read stands in comments.

    Args:
        source: of the file.
        name: of the file, for its heading.

    Raises:
        SyntaxError: it is not Python.
    """
    lines = [f"# From {name}, which was read and not run. `preforkd --check` tries it out."]
    given: dict[str, list[str]] = {}
    for setting in settings(source):
        comments, option = _option_of(setting)
        lines += [f"# {comment}" for comment in comments]
        if option is not None:
            _add(option, given)
    for option_name, values in given.items():
        lines.append(_line(option_name, values))
    return "\n".join(lines) + "\n"


def _add(option: tuple[str, list[str]], given: dict[str, list[str]]) -> None:
    name, values = option
    if BY_NAME[name].repeatable:
        given[name] = [*given.get(name, []), *values]
    else:
        given[name] = values


def _line(name: str, values: list[str]) -> str:
    option = BY_NAME[name]
    raw: object = values if option.repeatable else values[-1]
    try:
        return f"{name} = {option.kind.write(option.kind.read(raw))}"
    except ValueError as exc:
        return f"# {name}: {exc}"


def _option_of(setting: Setting) -> tuple[list[str], tuple[str, list[str]] | None]:
    """Return what is to be said of a setting, and the option of ours with its values as they would be typed."""
    where = f"line {setting.line}: {setting.name}"
    if setting.name in HOOKS:
        return [f"{where}: --hooks module:object, whose {HOOKS[setting.name]}() runs at that moment"], None
    if setting.name in NO_HOOKS and setting.name != "wsgi_app":
        return [f"{where}: {NO_HOOKS[setting.name]}"], None
    if not _is_setting(setting):
        return [], None  # a name of the file's own, or what a hook needs
    if setting.value is None:
        return _unread(setting, where)
    if setting.name == "wsgi_app":
        return [], ("app", [str(setting.value)])
    return _meant(setting, where)


def _unread(setting: Setting, where: str) -> tuple[list[str], tuple[str, list[str]] | None]:
    if setting.text == "None":
        return [], None
    if setting.name == "workers" and "cpu_count" in setting.text:
        return [f"{where} = {setting.text}: auto goes by the CPUs that affinity and quota allow"], ("workers", ["auto"])
    return [f"{where} = {setting.text}: not read, for it would have to be run; here it is {_called(setting)}"], None


def _called(setting: Setting) -> str:
    match meaning(_flag(setting), setting.text):
        case Given(name):
            return f"{name} (in the environment {BY_NAME[name].variable})"
        case Ignored(text) | Refused(text):
            return f"not needed, or done otherwise: {text}"


def _meant(setting: Setting, where: str) -> tuple[list[str], tuple[str, list[str]] | None]:
    values = setting.value if isinstance(setting.value, list) else [setting.value]
    if values == [False] and not _is_ours(setting):
        return [], None
    comments: list[str] = []
    option: tuple[str, list[str]] | None = None
    for value in values:
        match meaning(_flag(setting), json.dumps(value) if isinstance(value, bool) else str(value)):
            case Given(name, ours, note):
                option = (name, [*(option[1] if option else []), ours.replace("fd://", "fd:")])
                comments += [f"{where}: {note}"] if note else []
            case Ignored(text):
                comments.append(f"{where}: left out: {text}")
            case Refused(text):
                comments.append(f"{where} = {setting.text}: {text}")
    return comments, option


def _flag(setting: Setting) -> str:
    return SETTINGS.get(setting.name, "--" + setting.name.replace("_", "-"))


def _is_ours(setting: Setting) -> bool:
    option = BY_NAME.get(_flag(setting).lstrip("-").replace("-", "_"))
    return option is not None and isinstance(option.kind, Flag)


def _is_setting(setting: Setting) -> bool:
    """Whether gunicorn has a setting of this name, as far as is known here."""
    if setting.is_function or setting.name.startswith("_"):
        return False
    return setting.name in SETTINGS or setting.name == "wsgi_app" or _flag(setting) in KNOWN


def refusal(name: str, source: bytes) -> list[str]:
    """Say, a line each, that such a file is not read as a configuration, and what its settings are called here."""
    lines = [f"{name} is Python, and a configuration is TOML: `preforkd migrate {name}` prints one, without running it"]
    try:
        found = settings(source)
    except (SyntaxError, ValueError) as exc:  # ValueError: there are zero bytes in it
        return [*lines, f"it is no Python, either: {exc}"]
    return lines + [line for setting in found if (line := _row(setting))]


def _row(setting: Setting) -> str:
    comments, option = _option_of(setting)
    if option is not None:
        return f"{setting.name} (line {setting.line}) is {_line(*option)}"
    return comments[0] if comments else ""
