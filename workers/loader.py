"""From the name of an application to the application: `module:attr`, `module`, `path/file.py:attr`, `path/file.py`.

Only the standard library is imported here, so that a master may use the parts that run no code of the application.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import inspect
import keyword
import os
import re
import sys
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from preforkd.workers.blame import AppError, blame, installed, ran, short
from preforkd.workers.interface import (
    INTERFACES,
    PLAIN_FACTORY,
    Unclear,
    contradiction,
    interface_of,
    is_coroutine_function,
    kind,
)
from preforkd.workers.records import dataclass
from preforkd.workers.spelling import similar

__all__ = ["AppError", "LoadedApp", "Target", "check_target", "describe", "load", "parse"]

_CONVENTIONAL = ("app", "application")
_RACY = 2_000_000_000
"""Nanoseconds: a cache file that is no older than this after its source may be one of an earlier source."""


@dataclass(frozen=True, slots=True)
class Target:
    """An application's name, taken apart.

    Attributes:
        path: of a file as given; empty when a module is named.
        module: dotted; empty when a file is named.
        attr: dotted; empty when the app is to be found in the module.
    """

    path: str
    module: str
    attr: str

    @property
    def place(self) -> str:
        """The file or the module."""
        return self.path or self.module


@dataclass(frozen=True, slots=True)
class LoadedApp:
    """An application that can be served.

    Attributes:
        app: for the interface "protocol" a subclass of `ServerHttpProtocol`, for "asgi" and "wsgi" a callable.
        interface: how it is called.
    """

    app: Any
    interface: str


def parse(app: str) -> Target:
    """Take an application's name apart.

    Raises:
        AppError: it has none of the forms.
    """
    place, colon, attr = app.rpartition(":") if ":" in app else (app, "", "")
    if not place:
        raise AppError(f'"{app}" names no module: write "module:attr" or "path/file.py:attr"')
    if colon:
        _check_attr(app, attr)
    if place.endswith(".py"):
        return Target(path=place, module="", attr=attr)
    if "/" in place:
        raise AppError(f'"{place}" does not end in .py: name a file, or a package as a module ("package.module:attr")')
    if not all(part.isidentifier() and not keyword.iskeyword(part) for part in place.split(".")):
        raise AppError(f'"{place}" cannot be the name of a module: write "module:attr" or "path/file.py:attr"')
    return Target(path="", module=place, attr=attr)


def _check_attr(app: str, attr: str) -> None:
    if attr.endswith(")"):
        raise AppError(f'"{app}" is a call: write "{app.partition("(")[0]}" and --factory')
    if not all(part.isidentifier() for part in attr.split(".")):
        raise AppError(f'"{app}": "{attr}" is not the name of an attribute')


def describe(app: str) -> str:
    """The application's name for a process title: `deploy/hello.py:Handler` is `hello:Handler`."""
    try:
        target = parse(app)
    except AppError:
        return app
    place = Path(target.path).stem if target.path else target.module
    return f"{place}:{target.attr}" if target.attr else place


def check_target(app: str, app_dir: str, folder: str = ".") -> None:
    """Check what can be known of a target without running any of its code.

    Args:
        app: the target.
        app_dir: the folder that modules are imported from.
        folder: where a relative path of a file starts.

    Raises:
        AppError: it is malformed, or there is no such file or folder.
    """
    try:
        _check_paths(parse(app), app_dir, folder)
    except PermissionError as exc:  # a folder on the way: --user may not enter those of whoever starts the daemon
        raise AppError(f"{exc.filename} cannot be read: permission denied") from exc


def _check_paths(target: Target, app_dir: str, folder: str) -> None:
    if not Path(app_dir).is_dir():
        raise AppError(f"the app's folder {app_dir} (--app-dir) does not exist")
    if not target.path:
        return
    path = Path(folder, target.path)
    if path.is_dir():
        raise AppError(f"{target.path} is a folder, not a file")
    if not path.exists():
        raise AppError(f"{target.path} does not exist{_siblings(target.path, path)}")
    if not os.access(path, os.R_OK):
        raise AppError(f"{target.path} cannot be read: permission denied")


def _siblings(given: str, path: Path) -> str:
    """What the file may have been meant to be, or which folder of its path is missing."""
    if not path.parent.is_dir():
        return f": there is no folder {path.parent}"
    near = _near(path.name, [one.name for one in path.parent.glob("*.py")])
    return near or ("" if Path(given).is_absolute() else f" in {path.parent}")


def load(app: str, *, interface: str = "auto", factory: bool = False, app_dir: str = ".") -> LoadedApp:
    """Import the application.

    `sys.path[0]` becomes `app_dir`; the folder of a file that is named by its path comes next, as for a script.

    Args:
        app: `module:attr`, `module`, `path/file.py:attr` or `path/file.py`; `attr` may have dots. Without it, `app` or
            `application` is taken, or the one subclass of `ServerHttpProtocol` that the module defines.
        interface: "protocol", "asgi" or "wsgi", or "auto" to find out.
        factory: whether what is named is to be called without arguments, and gives the application.
        app_dir: the folder that modules are imported from.

    Raises:
        AppError: it cannot be served; the message is one line and says why.
    """
    target, module = _import(app, app_dir)
    found = _attribute(module, target) if target.attr else _find(module, target, factory=factory)
    if factory:
        found = _call(found, app)
    return LoadedApp(found, _interface(found, app, interface, made=factory))


def load_object(name: str, app_dir: str) -> object:
    """Import something that is no application.

    Args:
        name: as an application's; without `attr` it is the module.
        app_dir: the folder that modules are imported from.

    Raises:
        AppError: it cannot be imported, or is not there; the message is one line and says why.
    """
    target, module = _import(name, app_dir)
    return _attribute(module, target) if target.attr else module


# Importing


def _import(name: str, app_dir: str) -> tuple[Target, ModuleType]:
    check_target(name, app_dir)
    target = parse(name)
    _prepare_path(target, os.path.abspath(app_dir))  # noqa: PTH100 - resolving symlinks would pin an old release
    return target, _import_file(target.path) if target.path else _import_module(target.module, app_dir)


class _FreshLoader(importlib.machinery.SourceFileLoader):
    """Does not trust a bytecode cache that may be of an earlier source.

    Python compares only the source's size and its time in whole seconds. A file that is rewritten with the same size
    within the second in which it was first imported, as a quick deploy and reload may, would run its old code for ever.
    git has the same problem with its index, and the same cure: what was written too soon after is looked at again.
    """

    def get_data(self, path: str) -> bytes:
        """The content of a source or cache file; a doubtful cache file counts as missing, and is then replaced."""
        if path.endswith(tuple(importlib.machinery.BYTECODE_SUFFIXES)) and _racy(path):
            raise OSError(f"{path} was written too soon after its source")
        return super().get_data(path)


class _SourceLoader(importlib.machinery.SourceFileLoader):
    """Compiles a file each time: the file that is named on the command line is the one that is edited."""

    def get_code(self, fullname: str) -> CodeType:
        """The code of the file as it is now."""
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code


def _racy(cache: str) -> bool:
    try:
        source = importlib.util.source_from_cache(cache)
        return Path(cache).stat().st_mtime_ns - Path(source).stat().st_mtime_ns < _RACY
    except (OSError, ValueError):
        return False


_fresh_finder = importlib.machinery.FileFinder.path_hook(
    (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES),
    (_FreshLoader, importlib.machinery.SOURCE_SUFFIXES),
    (importlib.machinery.SourcelessFileLoader, importlib.machinery.BYTECODE_SUFFIXES),
)


def _find_fresh(folder: str) -> Any:
    """A path hook for the user's own folders; what is installed does not change within seconds."""
    if installed(folder):
        raise ImportError(f"{folder} is left to Python's own finder")
    return _fresh_finder(folder)


def _prepare_path(target: Target, app_dir: str) -> None:
    folders = [app_dir]
    if target.path:
        folders.append(str(Path(target.path).absolute().parent))
    sys.path[:] = [*dict.fromkeys(folders), *(entry for entry in sys.path if entry not in folders)]
    if _find_fresh not in sys.path_hooks:
        sys.path_hooks.insert(0, _find_fresh)
    sys.path_importer_cache.clear()  # finders made before the hook, and listings of folders that have changed since


def _import_file(path: str) -> ModuleType:
    filename = str(Path(path).absolute())
    name = _module_name(Path(path).stem)
    spec = importlib.util.spec_from_file_location(name, filename, loader=_SourceLoader(name, filename))
    if spec is None or spec.loader is None:
        raise AppError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs, as the import system does: dataclasses and pickle look it up there
    try:
        spec.loader.exec_module(module)
    except BaseException as exc:
        sys.modules.pop(name, None)
        if isinstance(exc, KeyboardInterrupt):
            raise
        raise blame(f'cannot import "{path}"', exc) from exc  # also for sys.exit()
    return module


def _module_name(stem: str) -> str:
    """The file's stem as a module name; never one that is taken, or belongs to the standard library."""
    name = re.sub(r"\W", "_", stem)
    if not name.isidentifier() or keyword.iskeyword(name) or name in sys.stdlib_module_names or name in sys.modules:
        return f"app_{name}"
    return name


def _import_module(name: str, app_dir: str) -> ModuleType:
    try:
        module = importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except ModuleNotFoundError as exc:
        if exc.name is not None and (name == exc.name or name.startswith(f"{exc.name}.")) and not ran(exc):
            raise AppError(_no_module(exc.name, app_dir)) from None
        raise blame(f'cannot import "{name}"', exc) from exc
    except BaseException as exc:
        raise blame(f'cannot import "{name}"', exc) from exc
    _check_not_shadowed(module, name, app_dir)
    return module


def _no_module(missing: str, app_dir: str) -> str:
    """The module that was asked for, or a package above it, does not exist."""
    parent, _, last = missing.rpartition(".")
    if parent:
        locations = list(getattr(sys.modules.get(parent), "__path__", []))
        where = f'"{parent}"' if locations else f'"{parent}" (it is a module, not a package)'
        return f'there is no module "{last}" in {where}{_near(last, _modules_in(locations))}'
    return f'there is no module "{missing}" in {app_dir} or in {sys.prefix}{_near(missing, _modules_in([app_dir]))}'


def _modules_in(folders: list[str]) -> list[str]:
    return [one.stem for folder in folders for one in Path(folder).glob("*") if one.suffix == ".py" or one.is_dir()]


def _check_not_shadowed(module: ModuleType, name: str, app_dir: str) -> None:
    """Refuse a module of the same name that was imported before the user's could be."""
    place = Path(app_dir, *name.split("."))
    theirs = [file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()]
    loaded = getattr(module, "__file__", None)
    # The folder and not the file: beside the source there may be an extension that was compiled from it.
    if theirs and not any(loaded and file.parent.samefile(Path(loaded).parent) for file in theirs):
        raise AppError(f'the module "{name}" is {loaded or "built into Python"}: for yours write "{short(theirs[0])}"')


# Finding the application in the module


def _where(module: ModuleType) -> str:
    return short(getattr(module, "__file__", None) or module.__name__)


def _attribute(module: ModuleType, target: Target) -> object:
    found: object = module
    names = target.attr.split(".")
    for number, name in enumerate(names):
        owner = ":".join([_where(module), ".".join(names[:number])]).rstrip(":")
        try:
            found = getattr(found, name)
        except AttributeError:
            raise AppError(f'{owner} has no attribute "{name}"{_near(name, _public(found))}') from None
        except Exception as exc:  # a property, or a module's __getattr__
            raise blame(f'cannot get "{name}" of {owner}', exc) from exc
    return found


def _public(found: object) -> list[str]:
    return [name for name in dir(found) if not name.startswith("_")]


def _find(module: ModuleType, target: Target, *, factory: bool) -> object:
    """The application of a module that was named alone."""
    for name in _CONVENTIONAL:
        if hasattr(module, name):
            return getattr(module, name)
    classes = [] if factory else _protocols_of(module)
    if len(classes) == 1:
        return classes[0]
    names = [one.__name__ for one in classes]
    several = f"defines {len(names)} protocol classes ({', '.join(names)})" if names else "defines no protocol class"
    example = names[0] if names else "attr"
    raise AppError(f'{_where(module)} has no "app", and {several}: name one, as in "{target.place}:{example}"')


def _protocols_of(module: ModuleType) -> list[type]:
    protocol = _protocol_class()
    return [
        one
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, protocol) and one.__module__ == module.__name__
    ]


def _protocol_class() -> type:
    from preforkd.workers.http.protocol import ServerHttpProtocol  # here, to keep the event loop out of the master

    return ServerHttpProtocol


def _call(factory: object, app: str) -> object:
    if not callable(factory):
        raise AppError(f'"{app}" is {kind(factory)}, not a function: --factory has nothing to call')
    if is_coroutine_function(factory):
        raise AppError(f'"{app}" is a coroutine function: {PLAIN_FACTORY}')
    try:
        made = factory()
    except KeyboardInterrupt:
        raise
    except BaseException as exc:
        raise blame(f'the factory "{app}" failed', exc) from exc
    if inspect.iscoroutine(made):
        made.close()  # or Python warns that nobody has awaited it
        raise AppError(f'"{app}" returns a coroutine: {PLAIN_FACTORY}')
    return made


def _interface(found: object, app: str, interface: str, *, made: bool) -> str:
    """How an application is called; refuses what cannot be.

    Args:
        found: the application.
        app: its name, or that of its factory.
        interface: as the user has it.
        made: a factory has returned it.
    """
    name = f'what the factory "{app}" has returned' if made else f'"{app}"'
    told = interface_of(found, _protocol_class())
    factory = f"; --factory {told.factory}" if isinstance(told, Unclear) and told.factory and not made else ""
    if interface == "auto":
        if isinstance(told, Unclear):
            raise AppError(f"{name} is {told.reason}{factory}")
        return told
    if interface not in INTERFACES:
        raise AppError(f'the interface "{interface}" is not one of {", ".join(INTERFACES)}')
    refusal = f"{name} is {kind(found)}, which cannot be served as --interface {interface}"
    if (told == "protocol") != (interface == "protocol") or not callable(found):
        raise AppError(f"{refusal}{factory}")
    why = contradiction(found, interface) if interface != "protocol" else ""
    if why:
        raise AppError(f"{refusal}: {why}{factory}" + ("" if isinstance(told, Unclear) else f"; it is {told.upper()}"))
    return interface


def _near(word: str, known: list[str]) -> str:
    near = similar(word, sorted(set(known)))
    return f"; did you mean {' or '.join(near)}?" if near else ""
