"""Which daemon is meant: options, environment, pid file."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from preforkd.daemon.finding import NotFoundError, _listening, _of_container, addresses


def test_what_the_user_gives_counts_before_the_environment_and_unix_sockets_come_first() -> None:
    environ = {"PREFORKD_ADMIN": " 127.0.0.1:9000 , unix:/run/a.sock,", "PREFORKD_PID": "/nowhere"}
    assert addresses((), "", environ) == ["unix:/run/a.sock", "127.0.0.1:9000"]
    assert addresses(("127.0.0.1:1",), "", environ) == ["127.0.0.1:1"]
    with pytest.raises(NotFoundError, match="the pid file /gone cannot be read: No such file or directory"):
        addresses((), "/gone", environ)


def test_what_cannot_be_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="which daemon"):
        addresses((), "", {})
    file = tmp_path / "pid"
    for text, why in (("x", "is no pid file"), ("", "is no pid file"), (str(2**22 + 1), "the daemon does not run")):
        file.write_text(text)
        with pytest.raises(NotFoundError, match=why):
            addresses((), str(file), {})
    file.write_text(f"{os.getpid()}\n")
    with pytest.raises(NotFoundError, match="has no admin process: start preforkd with --admin"):
        addresses((), "", {"PREFORKD_PID": str(file)})


def test_the_system_says_where_a_process_listens(tmp_path: Path) -> None:
    path, name = str(tmp_path / "a.sock"), f"\0{tmp_path.name}"
    with (
        socket.create_server(("127.0.0.1", 0)) as four,
        socket.socket(socket.AF_UNIX) as file,
        socket.socket(socket.AF_UNIX) as abstract,
        socket.socket(socket.AF_UNIX) as idle,
    ):
        for one, where in ((file, path), (abstract, name)):
            one.bind(where)
            one.listen()
        idle.bind(str(tmp_path / "idle"))
        found = set(_listening(os.getpid()))
        expected = {f"unix:{path}", f"unix:@{tmp_path.name}", f"127.0.0.1:{four.getsockname()[1]}"}
        assert found >= expected
        assert f"unix:{tmp_path}/idle" not in found, "nobody can connect there"
        if socket.has_dualstack_ipv6():
            with socket.create_server(("::1", 0), family=socket.AF_INET6) as six:
                assert f"[::1]:{six.getsockname()[1]}" in set(_listening(os.getpid()))


def test_another_first_process_than_a_master_is_not_asked() -> None:
    assert _of_container(os.getpid()) == []
    assert _of_container(2**22 + 1) == []
