"""`wsgi.file_wrapper`: by sendfile where the kernel can, else read; always closed."""

from __future__ import annotations

import gzip
import io
import os
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from preforkd.workers.gateways.wsgi.file import FileWrapper, sendable
from tests.e2e.client import TruncatedError
from tests.e2e.deadline import until
from tests.workers.gateways.wsgi.serving import MODES, App, Environ, StartResponse, serve

every_mode = pytest.mark.parametrize("threads", MODES.values(), ids=MODES)
CONTENT = os.urandom(3_000_000)
DEADLINE = 10.0


class Noted(io.FileIO):
    """Not one of Python's plain files: has to be read."""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "content"
    path.write_bytes(CONTENT)
    return path


def serving(make: Callable[[], Any], *headers: tuple[str, str]) -> tuple[App, threading.Event]:
    """An app that answers with a file; the event tells that it was closed."""
    closed = threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Any:
        if environ["PATH_INFO"] != "/":
            start_response("200 OK", [])
            return [b"another"]
        file = make()
        start_response("200 OK", list(headers))
        wrapper = environ["wsgi.file_wrapper"](file, 10_000)
        close = wrapper.close

        def noted_close() -> None:
            close()
            closed.set()

        wrapper.close = noted_close
        return wrapper

    return app, closed


@every_mode
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_file_is_sent_whole_by_sendfile_and_closed(
    threads: int, path: Path, loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = []
    sendfile = os.sendfile

    def noted(*args: Any) -> int:
        count = sendfile(*args)
        sent.append(count)
        return count

    monkeypatch.setattr(os, "sendfile", noted)
    app, closed = serving(lambda: path.open("rb"))
    with serve(app, threads, loop=loop) as served, served.connect() as connection:
        for _ in range(2):
            said = connection.get()
            assert (said.body == CONTENT, said.header("Content-Length")) == (True, str(len(CONTENT)))
            assert closed.wait(DEADLINE)
            closed.clear()
        assert connection.get("/x").body == b"another"
    assert sum(sent) == 2 * len(CONTENT)


@every_mode
def test_a_file_is_sent_from_where_it_stands_and_as_long_as_the_app_says(threads: int, path: Path) -> None:
    def opened() -> Any:
        file = path.open("rb")
        file.read(100)
        return file

    app, _ = serving(opened)
    with serve(app, threads) as served:
        assert served.get().body == CONTENT[100:]
    app, _ = serving(opened, ("Content-Length", "1000"))
    with serve(app, threads) as served, served.connect() as connection:
        assert connection.get().body == CONTENT[100:1100]
        assert connection.get("/x").body == b"another"


@every_mode
def test_a_file_that_is_shorter_than_its_content_length_cuts_the_connection(threads: int, path: Path) -> None:
    app, closed = serving(lambda: path.open("rb"), ("Content-Length", str(len(CONTENT) + 1)))
    with serve(app, threads) as served, served.connect() as connection:
        connection.ask()
        with pytest.raises(TruncatedError):
            connection.answer()
        assert closed.wait(DEADLINE)


@every_mode
@pytest.mark.parametrize("kind", ["BytesIO", "gzip", "subclass", "no close"])
def test_what_the_kernel_cannot_send_is_read(threads: int, kind: str, path: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    packed.write_bytes(gzip.compress(CONTENT))

    class NoClose:
        def __init__(self) -> None:
            self.read = io.BytesIO(CONTENT).read

    make: dict[str, Callable[[], Any]] = {
        "BytesIO": lambda: io.BytesIO(CONTENT),
        "gzip": lambda: gzip.open(packed),  # noqa: SIM115 -- its wrapper closes it
        "subclass": lambda: Noted(path),
        "no close": NoClose,
    }

    def app(environ: Environ, start_response: StartResponse) -> Any:
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](make[kind]())

    with serve(app, threads) as served:
        assert served.get().body == CONTENT


@every_mode
def test_head_of_a_file_has_its_length_and_the_connection_goes_on(threads: int, path: Path) -> None:
    app, closed = serving(lambda: path.open("rb"))
    with serve(app, threads) as served, served.connect() as connection:
        connection.ask(method="HEAD")
        assert connection.answer(to="HEAD").header("Content-Length") == str(len(CONTENT))
        assert closed.wait(DEADLINE)
        assert connection.get("/x").body == b"another"


@every_mode
def test_a_client_that_leaves_ends_the_sending_and_the_file_is_closed(threads: int, path: Path) -> None:
    large = path.with_name("large")
    with large.open("wb") as file:
        file.truncate(100_000_000)
    app, closed = serving(lambda: large.open("rb"))
    with serve(app, threads) as served:
        connection = served.connect()
        connection.ask()
        connection.read_some()
        connection.close()
        assert closed.wait(DEADLINE)
        assert served.get("/x").body == b"another"


def test_a_file_whose_request_is_over_before_its_sending_has_begun_is_closed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, closed = serving(lambda: path.open("rb"))
    with serve(app, 1) as served, served.connect() as connection:
        assert connection.get("/x").body == b"another"
        protocol, pool = served.protocol, served.gateway.pool(served.loop)
        take = pool._take_posted

        def take_and_expire() -> None:
            take()
            if protocol.request is not None:
                protocol.expire_request()

        monkeypatch.setattr(pool, "_take_posted", take_and_expire)
        connection.ask()
        assert closed.wait(DEADLINE)
        until(lambda: pool.unfinished == 0, DEADLINE, "the end of the call")


def test_a_client_that_reads_a_file_slowly_holds_no_thread(path: Path) -> None:
    large = path.with_name("large2")
    with large.open("wb") as file:
        file.truncate(100_000_000)
    app, closed = serving(lambda: large.open("rb"))
    with serve(app, 1) as served, served.connect() as slow:
        slow.ask()
        slow.read_some()
        assert served.get("/x").body == b"another"
        assert not closed.is_set()
        slow.close()
        assert closed.wait(DEADLINE)


@every_mode
def test_a_client_that_does_not_read_a_file_is_cut_at_the_write_timeout(threads: int, path: Path) -> None:
    large = path.with_name("large3")
    with large.open("wb") as file:
        file.truncate(100_000_000)
    app, closed = serving(lambda: large.open("rb"))
    with serve(app, threads, write_timeout=0.3) as served, served.connect() as connection:
        connection.ask()
        assert closed.wait(DEADLINE)


@every_mode
def test_through_tls_a_file_is_read_in_a_thread_not_in_the_loop(
    threads: int, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers = set()
    pread = os.pread

    def noted(*args: Any) -> bytes:
        readers.add(threading.current_thread().name)
        return pread(*args)

    monkeypatch.setattr(os, "pread", noted)
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    app, _ = serving(lambda: path.open("rb"))
    with serve(app, threads, ssl=context) as served, served.connect() as connection:
        trusting = ssl.create_default_context(cafile=str(certificate))
        connection.socket = trusting.wrap_socket(connection.socket, server_hostname="localhost")
        assert connection.get().body == CONTENT
    assert {name.partition("_")[0] for name in readers} == {"uvloop"}, "one of the loop's pool"


def test_only_plain_files_are_sendable(path: Path) -> None:
    with path.open("rb") as plain, path.open("r+b") as both, path.open("rb", buffering=0) as raw:
        for file in (plain, both, raw):
            file.seek(10)
            part = sendable(FileWrapper(file))
            assert part is not None
            assert part[1:] == (10, len(CONTENT) - 10)
    with tempfile.NamedTemporaryFile() as temporary:
        temporary.write(b"12345")
        temporary.flush()
        temporary.seek(0)
        part = sendable(FileWrapper(temporary))
        assert part is not None
        assert part.size == 5
    assert sendable(FileWrapper(plain)) is None, "it is closed"
    with path.open("r", encoding="latin-1") as text:
        assert sendable(FileWrapper(text)) is None
    reading, writing = os.pipe()
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert sendable(FileWrapper(pipe)) is None
