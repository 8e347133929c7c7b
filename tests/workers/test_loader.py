"""The loader: every form of a target, always the code as it is now, and one clear line for whatever goes wrong."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preforkd.workers import ServerHttpProtocol
from preforkd.workers.loader import AppError, check_target, describe, load, parse

APP = """
from preforkd.workers import ServerHttpProtocol

class Handler(ServerHttpProtocol):
    VERSION = 1
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory; whatever loading changes in the process is undone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "hello", raising=False)  # another test may have imported the example of that name
    path, hooks, modules = sys.path[:], sys.path_hooks[:], set(sys.modules)
    yield tmp_path
    sys.path[:], sys.path_hooks[:] = path, hooks
    sys.path_importer_cache.clear()
    for name in set(sys.modules) - modules:
        if not name.startswith("preforkd."):
            del sys.modules[name]


def write(folder: Path, **files: str) -> None:
    """Make files: `pkg_DIR_a` is pkg/a.py."""
    for name, text in files.items():
        path = folder / f"{name.replace('_DIR_', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def refused(app: str, **options: object) -> AppError:
    with pytest.raises(AppError) as raised:
        load(app, **options)  # type: ignore[arg-type]  # as each test gives them
    assert len(str(raised.value).splitlines()) == 1
    return raised.value


# Targets


@pytest.mark.parametrize(
    ("app", "module", "name"),
    [
        ("hello.py:Handler", "hello", "Handler"),
        ("hello.py", "hello", "Handler"),
        ("hello:Handler", "hello", "Handler"),
        ("hello", "hello", "Handler"),
        ("pkg.web:Handler", "pkg.web", "Handler"),
        ("pkg.web:Site.handler", "pkg.web", "Handler"),
        ("pkg/web.py:Site.handler", "web", "Handler"),
        ("pkg:app", "pkg.web", "Handler"),
        ("conventional.py", "conventional", "Other"),
        ("conventional", "conventional", "Other"),
    ],
)
def test_every_form_of_a_target_is_loaded(folder: Path, app: str, module: str, name: str) -> None:
    write(
        folder,
        hello=APP + "class NotOurs(dict): pass\nAlias = ServerHttpProtocol\n",
        pkg_DIR_web=APP + "class Site: handler = Handler\n",
        pkg_DIR___init__="from pkg.web import Handler as app",
        conventional=APP + "class Other(Handler): pass\napplication = Other\n",
    )
    loaded = load(app)
    assert issubclass(loaded.app, ServerHttpProtocol)
    assert (loaded.app.__module__, loaded.app.__name__, loaded.interface) == (module, name, "protocol")


@pytest.mark.parametrize(
    ("app", "said"),
    [
        (":app", "names no module"),
        ("hello:", '"" is not the name of an attribute'),
        ("hello:a-b", '"a-b" is not the name of an attribute'),
        ("hello:a..b", "is not the name of an attribute"),
        ("hello:create_app()", 'is a call: write "hello:create_app" and --factory'),
        ("my-app:app", '"my-app" cannot be the name of a module'),
        (".web:app", "cannot be the name of a module"),
        ("pkg.class:app", "cannot be the name of a module"),
        ("a b", "cannot be the name of a module"),
        ("deploy/hello:app", "does not end in .py"),
        ("http://hello:80", "is not the name of an attribute"),
    ],
)
def test_a_malformed_target_is_refused(app: str, said: str) -> None:
    assert said in str(refused(app))


@given(st.text(max_size=20))
def test_any_text_is_a_target_or_an_app_error(text: str) -> None:
    try:
        target = parse(text)
    except AppError:
        assert describe(text) == text
        return
    assert bool(target.path) != bool(target.module)


@pytest.mark.parametrize(
    ("app", "title"),
    [
        ("deploy/examples/hello.py:HttpRequestHandler", "hello:HttpRequestHandler"),
        ("hello.py", "hello"),
        ("shop.web:Handler", "shop.web:Handler"),
        ("shop.web", "shop.web"),
        ("not a target", "not a target"),
    ],
)
def test_a_process_title_is_short(app: str, title: str) -> None:
    assert describe(app) == title


# Where modules come from


def test_modules_come_from_the_apps_folder_first_and_then_from_the_files_own(folder: Path) -> None:
    write(
        folder,
        src_DIR_shared="VALUE = 'src'",
        deploy_DIR_shared="VALUE = 'deploy'",
        deploy_DIR_beside="VALUE = 'beside'",
        deploy_DIR_hello=APP + "import beside, shared\nHandler.found = (shared.VALUE, beside.VALUE)\n",
    )
    assert load("deploy/hello.py:Handler", app_dir="src").app.found == ("src", "beside")
    assert sys.path[:2] == [str(folder / "src"), str(folder / "deploy")]
    assert sys.path.count(str(folder / "src")) == 1


@pytest.mark.parametrize("stem", ["json", "logging", "my-app", "class", "sys", "1st", "pytest"])
def test_a_file_of_any_name_is_loaded_and_shadows_nothing(folder: Path, stem: str) -> None:
    standard = sys.modules.get(stem)
    write(folder, **{stem: APP})
    loaded = load(f"{stem}.py:Handler")
    assert sys.modules.get(stem) is standard
    assert sys.modules[loaded.app.__module__].Handler is loaded.app


def test_a_module_that_python_has_already_is_not_taken_for_the_users(folder: Path) -> None:
    write(folder, json=APP)
    assert str(refused("json:Handler")).endswith('for yours write "json.py"')
    assert load("json.py:Handler").interface == "protocol"
    write(folder, email_DIR___init__=APP, sys=APP)
    assert str(refused("email:Handler")).endswith('for yours write "email/__init__.py"')
    assert str(refused("sys:Handler")) == 'the module "sys" is built into Python: for yours write "sys.py"'


def test_a_module_and_a_package_of_one_name_are_no_trouble(folder: Path) -> None:
    write(folder, hello="", hello_DIR___init__=APP)
    assert load("hello:Handler").interface == "protocol"


def test_a_file_can_be_found_by_what_it_imports_as_a_module(folder: Path) -> None:
    write(folder, hello="import other\n" + APP, other="import hello\nNAME = hello.__name__\n")
    assert sys.modules[load("hello.py:Handler").app.__module__].other.NAME == "hello"


# Always the code as it is now


@pytest.mark.parametrize("app", ["hello.py:Handler", "hello:Handler", "importer.py:Handler", "pkg.sub:Handler"])
def test_a_rewrite_within_the_second_and_of_the_same_size_is_seen(folder: Path, app: str) -> None:
    script = "import sys; from preforkd.workers.loader import load; print(load(sys.argv[1]).app.VERSION)"
    seen = []
    for version in ("1", "2", "3"):
        source = APP.replace("VERSION = 1", f"VERSION = {version}")
        write(folder, hello=source, importer="from hello import Handler", pkg_DIR___init__="", pkg_DIR_sub=source)
        for path in folder.rglob("*.py"):
            os.utime(path, (1_700_000_000, 1_700_000_000))  # the same second, whatever the clock says
        command = [sys.executable, "-c", script, app]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PATH": os.defpath})
        # The cache is as old as a boot right after the rewrite makes it.
        for path in folder.rglob("*.pyc"):
            os.utime(path, (1_700_000_001, 1_700_000_001))
        seen.append(done.stdout.strip())
    assert seen == ["1", "2", "3"]


def test_a_cache_that_is_old_enough_is_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    write(folder, hello=APP)
    os.utime(folder / "hello.py", (1_700_000_000, 1_700_000_000))
    load("hello:Handler")
    cache = Path(importlib.util.cache_from_source(str(folder / "hello.py")))
    cache.write_bytes(cache.read_bytes()[:16] + b"broken")  # the header says that it is of this source
    del sys.modules["hello"]
    with pytest.raises(AppError, match="bad marshal data"):
        load("hello:Handler")


# What does not exist


@pytest.mark.parametrize(
    ("app", "said"),
    [
        ("helo.py:Handler", "helo.py does not exist; did you mean hello.py?"),
        ("xyz.py:Handler", "xyz.py does not exist in {folder}"),
        ("/xyz/hello.py", "/xyz/hello.py does not exist: there is no folder /xyz"),
        ("none/hello.py", "none/hello.py does not exist: there is no folder {folder}/none"),
        ("folder.py:Handler", "folder.py is a folder, not a file"),
    ],
)
def test_a_path_that_does_not_exist_is_refused_without_running_anything(folder: Path, app: str, said: str) -> None:
    write(folder, hello="raise SystemError")
    (folder / "folder.py").mkdir()
    with pytest.raises(AppError) as raised:
        check_target(app, ".", str(folder))
    assert str(raised.value) == said.format(folder=folder)
    with pytest.raises(AppError, match=r" does not exist| is a folder"):
        load(app)


def test_an_app_folder_that_does_not_exist_is_refused(folder: Path) -> None:
    assert str(refused("hello:Handler", app_dir="none")) == "the app's folder none (--app-dir) does not exist"


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused(folder: Path) -> None:
    write(folder, hello=APP)
    (folder / "hello.py").chmod(0)
    assert str(refused("hello.py:Handler")) == "hello.py cannot be read: permission denied"


def test_a_module_that_does_not_exist_is_refused_with_near_matches(folder: Path) -> None:
    write(folder, hello=APP, pkg_DIR___init__="", pkg_DIR_web=APP)
    found = refused("helo:Handler", app_dir=str(folder))
    assert str(found) == f'there is no module "helo" in {folder} or in {sys.prefix}; did you mean hello?'
    assert found.details == ""
    assert str(refused("pkg.wbe:Handler")) == 'there is no module "wbe" in "pkg"; did you mean web?'
    assert str(refused("hello.web:Handler")) == 'there is no module "web" in "hello" (it is a module, not a package)'
    assert str(refused("none.web:Handler")).startswith('there is no module "none" in ')


@pytest.mark.parametrize(
    ("app", "said"),
    [
        ("hello.py:Handlr", 'hello.py has no attribute "Handlr"; did you mean Handler?'),
        ("hello:Handlr", 'hello.py has no attribute "Handlr"; did you mean Handler?'),
        ("hello.py:Site.handlr", 'hello.py:Site has no attribute "handlr"; did you mean handler?'),
        ("hello.py:xyz", 'hello.py has no attribute "xyz"'),
    ],
)
def test_an_attribute_that_is_missing_is_refused_with_near_matches(folder: Path, app: str, said: str) -> None:
    write(folder, hello=APP + "class Site: handler = Handler\n")
    assert str(refused(app)) == said


def test_a_module_alone_has_to_hold_one_app(folder: Path) -> None:
    write(folder, none="from preforkd.workers import ServerHttpProtocol", two=APP + "class Other(Handler): pass\n")
    assert str(refused("none.py")) == (
        'none.py has no "app", and defines no protocol class: name one, as in "none.py:attr"'
    )
    assert str(refused("two")) == (
        'two.py has no "app", and defines 2 protocol classes (Handler, Other): name one, as in "two:Handler"'
    )


# What its code does wrong

BREAKAGE: list[tuple[str, str]] = [
    ("import no_such_thing", "APP:2: ModuleNotFoundError: No module named 'no_such_thing'"),
    ("from os import no_such_thing", "APP:2: ImportError: cannot import name 'no_such_thing' from 'os'"),
    ("x = 1 +", "APP:2: SyntaxError: invalid syntax"),
    ("  x = 1", "APP:2: IndentationError: unexpected indent"),
    ("x = '\0'", "source code string cannot contain null bytes"),
    ("eval('1 +')", "APP:2: SyntaxError: invalid syntax"),
    ("1 / 0", "APP:2: ZeroDivisionError: division by zero"),
    ("raise ValueError('one\\ntwo')", "APP:2: ValueError: one two"),
    ("raise ValueError", "APP:2: ValueError"),
    ("raise ValueError('x' * 9999)", "xxx..."),
    ("import sys; sys.exit(1)", "APP:2: it calls sys.exit(1)"),
    ("import sys; sys.exit()", "APP:2: it calls sys.exit()"),
    (
        "import sys; sys.exit('DATABASE_URL\\nis missing, ' + 'so ' * 20)",
        "APP:2: DATABASE_URL is missing, so so so so so so",
    ),
    ("raise GeneratorExit", "APP:2: GeneratorExit"),
    ("import broken", "broken.py:1: ZeroDivisionError: division by zero"),
    ("import unparsable", "unparsable.py:1: SyntaxError"),
    ("import json; json.loads('x')", "APP:2: JSONDecodeError: Expecting value: line 1 column 1 (char 0) (raised in "),
    (
        "class E(Exception):\n  def __str__(self): raise self\nraise E",
        "APP:4: E: (its text cannot be had: __str__ raises)",
    ),
]


@pytest.mark.parametrize(
    ("code", "said"), BREAKAGE, ids=[code[:30].encode("unicode_escape").decode() for code, _ in BREAKAGE]
)
@pytest.mark.parametrize("app", ["app.py:Handler", "app:Handler", "pkg.app:Handler"])
def test_code_that_fails_at_import_is_named_with_file_line_and_cause(
    folder: Path, code: str, said: str, app: str
) -> None:
    source = f"# the first line\n{code}\n"
    write(folder, app=source, pkg_DIR___init__="", pkg_DIR_app=source, broken="1 / 0", unparsable="(")
    found = refused(app)
    place = app.rpartition(":")[0]
    file = "pkg/app.py" if place == "pkg.app" else "app.py"
    assert str(found).startswith(f'cannot import "{place}": ')
    assert said.replace("APP", file) in str(found)


def test_a_file_that_is_not_utf8_is_named(folder: Path) -> None:
    (folder / "hello.py").write_bytes(b"x = 1\ny = '\xff'\n")
    assert re.search(r'^cannot import "hello(\.py)?": hello\.py:\d: SyntaxError: .*utf-8', str(refused("hello.py")))
    assert re.search(r'^cannot import "hello(\.py)?": hello\.py:\d: SyntaxError: .*utf-8', str(refused("hello")))


def test_a_relative_import_in_a_file_is_told_the_form_that_works(folder: Path) -> None:
    write(folder, pkg_DIR___init__="", pkg_DIR_app="from .models import x", pkg_DIR_models="x = 1")
    assert str(refused("pkg/app.py")) == (
        'cannot import "pkg/app.py": pkg/app.py:1: ImportError: '
        "attempted relative import with no known parent package; "
        "name the app as a module of its package, as in package.module:app"
    )


def test_the_details_are_the_apps_own_traceback(folder: Path) -> None:
    write(folder, hello="import broken", broken="def f():\n    1 / 0\nf()\n")
    for app in ("hello.py", "hello"):
        details = refused(app).details
        assert re.findall(r'File "(.+)", line (\d+)', details) == [
            (f"{folder}/hello.py", "1"),
            (f"{folder}/broken.py", "3"),
            (f"{folder}/broken.py", "2"),
        ]
        assert details.startswith("Traceback")
        assert details.endswith("ZeroDivisionError: division by zero\n")


def test_a_file_that_failed_leaves_no_module_behind(folder: Path) -> None:
    write(folder, hello="1 / 0")
    refused("hello.py")
    assert "hello" not in sys.modules


def test_ctrl_c_during_the_import_is_not_the_apps_fault(folder: Path) -> None:
    write(folder, hello="raise KeyboardInterrupt")
    for app in ("hello.py", "hello"):
        with pytest.raises(KeyboardInterrupt):
            load(app)


# What cannot be served


@pytest.mark.parametrize(
    ("attr", "said"),
    [
        ("number", "is an object of builtins.int"),
        ("nothing", "is None"),
        ("os", "is a module"),
        ("Plain", "is the class Plain, not an application"),
        ("create", "is a function, which takes neither the three arguments of ASGI nor the two of WSGI"),
        ("instance", "is an instance of Handler: name the class itself"),
    ],
)
def test_an_attribute_of_another_kind_is_refused_with_what_it_is(folder: Path, attr: str, said: str) -> None:
    write(
        folder,
        hello=APP
        + """
import os
number, nothing = 1, None
class Plain: pass
def create(): return Handler
instance = Handler.__new__(Handler)
""",
    )
    assert f'"hello.py:{attr}" {said}' in str(refused(f"hello.py:{attr}"))


def test_an_interface_that_the_app_cannot_have_is_refused(folder: Path) -> None:
    write(folder, hello=APP + "\nasync def asgi(scope, receive, send): pass\nnumber = 1\n")
    assert 'the interface "ajp" is not one of protocol, asgi, wsgi' in str(refused("hello.py", interface="ajp"))
    handler = str(refused("hello.py:Handler", interface="asgi"))
    assert "is the class Handler, which cannot be served as --interface asgi" in handler
    assert "cannot be served as --interface protocol" in str(refused("hello.py:asgi", interface="protocol"))
    assert "cannot be served as --interface wsgi" in str(refused("hello.py:number", interface="wsgi"))


def test_an_interface_that_every_request_would_fail_with_is_refused(folder: Path) -> None:
    write(
        folder,
        hello="""
import functools
def wsgi(environ, start_response): pass
async def asgi(scope, receive, send): pass
def decorated(*args): pass
decorated.__wrapped__ = wsgi
""",
    )
    assert str(refused("hello.py:wsgi", interface="asgi")) == (
        '"hello.py:wsgi" is a function, which cannot be served as --interface asgi: '
        "it does not take the three arguments of ASGI (scope, receive, send); it is WSGI"
    )
    assert str(refused("hello.py:asgi", interface="wsgi")) == (
        '"hello.py:asgi" is a coroutine function, which cannot be served as --interface wsgi: '
        "it does not take the two arguments of WSGI (environ, start_response); it is ASGI"
    )
    assert load("hello.py:decorated", interface="asgi").interface == "asgi", "it may be an adapter"


def test_the_interface_is_found_out_unless_it_is_named(folder: Path) -> None:
    write(
        folder,
        hello=APP
        + """
def wsgi(environ, start_response): pass
async def asgi(scope, receive, send): pass
def anything(*args): pass
""",
    )
    assert [load(f"hello.py:{name}").interface for name in ("Handler", "asgi", "wsgi")] == ["protocol", "asgi", "wsgi"]
    assert "say --interface asgi or --interface wsgi" in str(refused("hello.py:anything"))
    assert load("hello.py:anything", interface="asgi").interface == "asgi"


# Factories


def test_a_factory_gives_the_app(folder: Path) -> None:
    write(folder, hello=APP + "def create(): return Handler\napp = create\n")
    assert load("hello.py:create", factory=True).app.VERSION == 1
    assert load("hello.py", factory=True).app.VERSION == 1


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("create = 1", '"hello.py:create" is an object of builtins.int, not a function'),
        ("async def create(): pass", "is a coroutine function: a factory has to be a plain function"),
        ("class C:\n async def __call__(self): pass\ncreate = C()", "a factory has to be a plain function"),
        ("async def make(): pass\ndef create(): return make()", "returns a coroutine: a factory has to be a plain"),
        ("def create(): pass", 'what the factory "hello.py:create" has returned is None'),
        ("def create(): 1 / 0", 'the factory "hello.py:create" failed: hello.py:1: ZeroDivisionError'),
        ("def create(): raise SystemExit(3)", "hello.py:1: it calls sys.exit(3)"),
        ("def create(x): pass", "TypeError: create() missing 1 required positional argument"),
    ],
)
def test_a_factory_that_fails_is_named(folder: Path, code: str, said: str) -> None:
    write(folder, hello=code)
    assert said in str(refused("hello.py:create", factory=True))


@pytest.mark.parametrize(
    "create", ["def create(): return Handler", "def create(config=None, *, debug=False): return app"]
)
def test_what_is_told_of_factory_works(folder: Path, create: str) -> None:
    write(folder, hello=APP + f"async def app(scope, receive, send): pass\n{create}\n")
    assert str(refused("hello.py:create")).endswith("; --factory calls it")
    assert str(refused("hello.py:create", interface="asgi")).endswith("; --factory calls it")
    assert load("hello.py:create", factory=True).app is not None


def test_what_is_told_of_an_async_factory_is_the_same_with_and_without_the_option(folder: Path) -> None:
    write(folder, hello="async def create(): pass\n")
    why = "a factory has to be a plain function, for --factory does not await what it returns"
    for factory in (False, True):
        said = str(refused("hello.py:create", factory=factory))
        assert said.endswith(why)
        assert said.count("--factory") == 1


def test_a_class_may_be_a_factory_of_instances_that_are_called_asynchronously(folder: Path) -> None:
    write(folder, hello="class App:\n async def __call__(self, scope, receive, send): pass\n")
    assert str(refused("hello.py:App")).endswith(
        "is the class App, not an application: name an instance; --factory calls it"
    )
    assert load("hello.py:App", factory=True).interface == "asgi"


def test_what_a_factory_returns_is_not_told_of_the_factory_again(folder: Path) -> None:
    write(folder, hello="def make(): pass\ndef create(): return make\n")
    said = str(refused("hello.py:create", factory=True))
    assert said.startswith('what the factory "hello.py:create" has returned is a function, which takes neither ')
    assert "--factory" not in said


def test_the_loader_brings_neither_event_loop_nor_parser() -> None:
    code = "import sys, preforkd.workers.loader; print(sorted({'asyncio', 'uvloop', 'httptools'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
