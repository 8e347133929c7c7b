"""A daemon that is to speak TLS: what cannot be served ends its start in one line, and no password is shown."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.certificates import needs_openssl, trusting
from tests.e2e.client import get
from tests.e2e.conftest import COMMAND, Start
from tests.e2e.daemon import BOOT, ROOT, SITE, free_port

pytestmark = [needs_openssl, pytest.mark.parallel]


PASSWORD = "opensesame"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--certfile none.crt", "--certfile on the command line: {}/none.crt does not exist"),
        ("--certfile good.crt --keyfile none.key", "--certfile on the command line: {}/none.key does not exist"),
        ("--certfile good.crt --keyfile .", "{} cannot be read: Is a directory"),
        ("--certfile text", "{}/text holds no certificate (PEM: -----BEGIN CERTIFICATE-----)"),
        ("--certfile good.crt", "{}/good.crt holds no private key (PEM: -----BEGIN PRIVATE KEY-----)"),
        ("--certfile good.crt --keyfile other.key", "the key does not fit the certificate"),
        ("--certfile old.crt --keyfile old.key", "the certificate {}/old.crt has expired on "),
        ("--certfile user.crt --keyfile user.key", "no client would take the certificate: unsu"),
        ("--certfile locked.crt --keyfile locked.key", "the key is encrypted: give its password by keyfile_password"),
        (
            "--certfile locked.crt --keyfile locked.key --keyfile-password @text",
            "the key cannot be decrypted: is the password right?",
        ),
        (
            "--certfile locked.crt --keyfile locked.key --keyfile-password $NO_SUCH_THING",
            "there is no variable NO_SUCH_THING in the environment",
        ),
        (
            "--certfile locked.crt --keyfile locked.key --keyfile-password opensesame",
            "--keyfile-password on the command line: everybody can read it there",
        ),
        ("--keyfile good.key", "--keyfile on the command line: no address speaks TLS: give certfile too"),
        ("--bind tls:127.0.0.1:1", '--bind on the command line: "tls:127.0.0.1:1" has no certificate'),
        (
            "--certfile good.crt --keyfile good.key --cert-reqs required",
            "--cert-reqs on the command line: required needs the authorities to verify with: --ca-certs",
        ),
        (
            "--certfile good.crt --keyfile good.key --ca-certs text",
            "--ca-certs on the command line: {}/text holds no certificate",
        ),
        (
            "--certfile good.crt --keyfile good.key --ciphers nonsense",
            '--ciphers on the command line: OpenSSL knows no cipher of TLS 1.2 among "nonsense"',
        ),
        (
            "--certfile good.crt --keyfile good.key --sni-certificate other.crt:good.key",
            "--sni-certificate on the command line: {0}/other.crt and {0}/good.key: the key does not fit",
        ),
    ],
)
def test_what_cannot_be_served_is_said_in_one_line_before_anything_is_forked(
    tls_files: Path, arguments: str, said: str
) -> None:
    command = [*COMMAND, SITE, "--chdir", str(tls_files), "--bind", f"127.0.0.1:{free_port()}", *arguments.split()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BOOT, cwd=ROOT)
    assert done.returncode == 2
    assert said.format(tls_files) in done.stderr
    assert done.stderr.count("\n") == 1
    assert "opensesame" not in done.stderr


def test_the_password_is_neither_in_the_process_list_nor_in_what_is_printed(tls_files: Path, start: Start) -> None:
    pair = ("--certfile", str(tls_files / "locked.crt"), "--keyfile", str(tls_files / "locked.key"))
    environment = {"PREFORKD_KEYFILE_PASSWORD": "opensesame"}
    daemon = start(*pair, environment=environment, workers=1)
    for process in daemon.processes():
        assert "opensesame" not in " ".join(process.cmdline())
    shown = subprocess.run(
        [*COMMAND, SITE, "--print-config", *pair],
        env={**os.environ, **environment}, capture_output=True, text=True, check=True, cwd=ROOT,
    ).stdout  # fmt: skip
    assert 'keyfile_password = "***"' in shown
    assert "opensesame" not in shown
    assert get(daemon.port, tls=trusting(tls_files / "authority.pem")).status == 200
