"""Standard streams that are closed from the start, in processes of their own."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest

CLOSED = [closed for count in range(4) for closed in itertools.combinations(range(3), count)]
PROGRAM = """
import os, socket, subprocess, sys
from preforkd.daemon import streams
streams.open_missing()
opened = socket.socket()
print("ignored", file=sys.stdout, flush=True)
print("ignored", file=sys.stderr, flush=True)
inherited = subprocess.run(["sh", "-c", "test -e /dev/fd/0 && test -e /dev/fd/1 && test -e /dev/fd/2"]).returncode
print(opened.fileno() > 2, sys.stdin is not None and "w" in sys.stdout.mode, inherited, file=open(sys.argv[1], "w"))
"""


@pytest.mark.parametrize("closed", CLOSED)
def test_a_descriptor_that_is_closed_is_opened_on_the_null_device(tmp_path: object, closed: tuple[int, ...]) -> None:
    file = f"{tmp_path}/said"
    closing = " ".join(f"{number}{'<' if number == 0 else '>'}&-" for number in closed)
    command = f'exec "$0" -c "$1" "$2" {closing}'
    subprocess.run(["sh", "-c", command, sys.executable, PROGRAM, file], check=True, capture_output=True, timeout=30)
    with open(file) as said:  # noqa: PTH123 - as above
        assert said.read().split() == ["True", "True", "0"]
