"""What is sent by StatsD."""

from __future__ import annotations

import logging
import re
import socket
from pathlib import Path

import pytest

from preforkd.workers.admin.settings import AdminSettings
from preforkd.workers.admin.snapshot import Counts
from preforkd.workers.admin.statsd import DATAGRAM, Statsd, datagrams, lines
from preforkd.workers.scoreboard import FIELDS, MasterField
from tests.workers.admin.boards import Board

NOTHING = Counts([0] * FIELDS)


def test_what_is_new_is_sent_with_the_names_of_gunicorn() -> None:
    board = Board(2)
    board.board.master[MasterField.QUEUES] = 4
    for _ in range(4):
        board.tallies[0].request("GET", 200, 0.001)
    board.tallies[1].request("GET", 404, 20.0)
    found = list(lines(NOTHING, board.read()))
    assert found[:7] == [
        "gunicorn.requests:5|c",
        "gunicorn.request.duration:2.5|ms|@0.25",
        "gunicorn.request.duration:10000|ms",
        "gunicorn.request.status.200:4|c",
        "gunicorn.request.status.404:1|c",
        "gunicorn.workers:2|g",
        "gunicorn.backlog:3|g",
    ]
    again = list(lines(board.read().total, board.read()))
    assert not [line for line in again if line.endswith("|c")], "nothing is sent twice"


def test_a_rate_stands_for_the_number_of_requests() -> None:
    for number in (3, 7, 999, 123_457):
        board = Board(1)
        for _ in range(number):
            board.tallies[0].request("GET", 200, 0.001)
        (rate,) = re.findall(r"\|ms\|@(.+)", "\n".join(lines(NOTHING, board.read())))
        assert round(1 / float(rate)) == number


def test_datagrams_are_filled_and_never_too_long() -> None:
    metrics = [f"metric.{n}:{n}|c" for n in range(200)]
    packets = list(datagrams(iter(metrics), "shop.", "env:prod,team:web"))
    assert max(map(len, packets)) <= DATAGRAM
    assert len(packets) == -(-len(b"\n".join(packets)) // DATAGRAM), "as few as possible"
    assert b"\n".join(packets).decode().split("\n") == [f"shop.{line}|#env:prod,team:web" for line in metrics]


def settings(*targets: tuple[str, int]) -> AdminSettings:
    return AdminSettings("app", 0, (), targets, "", "")


def test_it_is_sent_to_ports_and_paths(tmp_path: Path) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as unix,
    ):
        udp.bind(("127.0.0.1", 0))
        unix.bind(str(tmp_path / "statsd.sock"))
        board, statsd = Board(1), Statsd(settings(udp.getsockname(), (str(tmp_path / "statsd.sock"), 0)))
        board.tallies[0].request("GET", 200, 0.001)
        statsd.push(board.read())  # what was before is not its business
        board.tallies[0].request("GET", 200, 0.001)
        statsd.push(board.read())
        for receiver in (udp, unix):
            receiver.settimeout(5)
            assert receiver.recv(65536).startswith(b"gunicorn.workers:1|g\n")
            assert receiver.recv(65536).startswith(b"gunicorn.requests:1|c\n")
        statsd.close()


def test_a_receiver_that_is_not_there_is_said_once_and_found_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "statsd.sock"
    board, statsd = Board(1), Statsd(settings((str(path), 0)))
    with caplog.at_level(logging.WARNING, logger="preforkd"):
        for _ in range(4):
            statsd.push(board.read())
    assert [record.getMessage() for record in caplog.records] == [
        f"StatsD at {path} cannot be sent to: No such file or directory"
    ]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as unix:
        unix.bind(str(path))
        unix.settimeout(5)
        statsd.push(board.read())
        assert b"gunicorn.workers:1|g" in unix.recv(65536)
        statsd.close()
