"""Who has a port: found in procfs where it can be seen, and nothing said where it cannot."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from preforkd.daemon.occupant import occupant

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has this procfs")
HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def line(port: int, state: str, inode: int) -> str:
    return f"   0: 0100007F:{port:04X} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000 0 0 {inode} 1 0\n"


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_the_process_that_listens_is_named(family: socket.AddressFamily) -> None:
    with socket.create_server(("", 0), family=family) as server:
        assert occupant(server.getsockname()[1]).startswith(f"pid {os.getpid()} (")


def tree(root: Path, tcp: str, sockets: dict[int, int]) -> Path:
    """A procfs: the table of TCP, and by pid the inode of the socket that each has."""
    (root / "net").mkdir()
    (root / "net/tcp").write_text(HEADER + tcp)
    for pid, inode in sockets.items():
        (root / str(pid) / "fd").mkdir(parents=True)
        (root / str(pid) / "fd/3").symlink_to(f"socket:[{inode}]")
        (root / str(pid) / "comm").write_text(f"server {pid}\n")
    return root


def test_a_listener_comes_before_a_connection_and_a_master_before_its_workers(tmp_path: Path) -> None:
    table = line(80, "01", 11) + line(80, "0A", 22) + line(8080, "0A", 33)
    proc = tree(tmp_path, table, {5: 11, 100: 22, 20: 22, 7: 33})
    assert occupant(80, proc) == "pid 20 (server 20)"


@pytest.mark.parametrize(
    "table",
    [
        pytest.param("", id="nobody"),
        pytest.param(line(80, "06", 0), id="a connection in TIME_WAIT has no owner"),
        pytest.param(line(80, "0A", 99), id="a process that cannot be seen"),
        pytest.param("garbage\n", id="another format"),
    ],
)
def test_an_owner_that_cannot_be_seen_is_not_guessed(tmp_path: Path, table: str) -> None:
    assert occupant(80, tree(tmp_path, table, {5: 11})) == ""


def test_without_procfs_nothing_is_said(tmp_path: Path) -> None:
    assert occupant(80, tmp_path / "none") == ""
