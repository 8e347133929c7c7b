"""The contexts of TLS: what is loaded, what is refused and why, and how what is new reaches other processes."""

from __future__ import annotations

import os
import socket
import ssl
from dataclasses import replace
from typing import Any

import pytest

from preforkd.workers.tls_contexts import Contexts, Material, MaterialError, Profile, Store, make_context
from tests.certificates import Authority, needs_openssl

pytestmark = needs_openssl


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


def material(authority: Authority, name: str, *names: str, password: str = "") -> Material:
    certificate, key = authority.issue(name, *(names or ("localhost",)), password=password)
    return Material(certificate.read_text(), key.read_text(), password, names)


def shake(context: ssl.SSLContext, authority: Authority, name: str = "localhost") -> tuple[str, ssl.SSLObject]:
    """The common name of what a client gets that asks for a name, and the server's side."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    trusting = authority.client()
    trusting.check_hostname = False
    client = trusting.wrap_bio(down, up, server_hostname=name)
    server = context.wrap_bio(up, down, server_side=True)
    for side in (client, server, client, server):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    subject = dict(part[0] for part in (client.getpeercert() or {})["subject"])  # type: ignore[misc]
    return str(subject["commonName"]), server


def test_the_settings_of_a_context(authority: Authority) -> None:
    context = make_context(Profile((material(authority, "a"),)))
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.options & ssl.OP_NO_COMPRESSION
    assert context.verify_mode == ssl.CERT_NONE
    old = [one["name"] for one in context.get_ciphers() if one["protocol"] != "TLSv1.3"]
    assert old
    assert all(name.startswith("ECDHE-") and ("GCM" in name or "CHACHA20" in name) for name in old)


def test_the_name_that_a_client_asks_for_decides_and_is_kept(authority: Authority) -> None:
    context = make_context(
        Profile((material(authority, "first"), material(authority, "shop", "shop.test", "*.shop.test")))
    )
    for name, expected in (("shop.test", "shop"), ("www.shop.test", "shop"), ("other.test", "first")):
        subject, server = shake(context, authority, name)
        assert subject == expected
        assert getattr(server, "server_name", None) == name


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"certificate": "nothing"}, "no certificate in it"),
        ({"key": "nothing"}, "no private key in it"),
        ({"certificate": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}, "OpenSSL cannot load it"),
        ({"key": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"}, "OpenSSL cannot load it"),
    ],
)
def test_what_cannot_be_loaded_is_said(authority: Authority, change: dict[str, Any], said: str) -> None:
    with pytest.raises(MaterialError, match=said):
        make_context(Profile((replace(material(authority, "a"), **change),)))


def test_a_key_of_another_certificate_is_said(authority: Authority) -> None:
    one, other = material(authority, "a"), material(authority, "b")
    with pytest.raises(MaterialError, match="the key does not fit the certificate"):
        make_context(Profile((replace(one, key=other.key),)))


def test_an_encrypted_key_needs_its_password(authority: Authority) -> None:
    locked = material(authority, "locked", password="opensesame")
    make_context(Profile((locked,)))
    with pytest.raises(MaterialError, match="is encrypted"):
        make_context(Profile((replace(locked, password=""),)))
    with pytest.raises(MaterialError, match="is the password right"):
        make_context(Profile((replace(locked, password="wrong"),)))


def test_a_key_and_its_password_are_not_in_a_repr(authority: Authority) -> None:
    text = repr(Profile((material(authority, "locked", password="opensesame"),)))
    assert "opensesame" not in text
    assert "PRIVATE" not in text


def test_ciphers_and_authorities_that_cannot_be_used_are_said(authority: Authority) -> None:
    good = (material(authority, "a"),)
    with pytest.raises(MaterialError, match='among "nonsense"'):
        make_context(Profile(good, ciphers="nonsense"))
    with pytest.raises(MaterialError, match="authorities"):
        make_context(Profile(good, ca_certs="-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))


@pytest.mark.alone  # it forks
def test_what_is_new_is_served_by_other_processes_when_they_renew(authority: Authority) -> None:
    first, second = material(authority, "first"), material(authority, "second")
    contexts = Contexts({"a:1": Profile((first,)), "b:1": Profile((first,))})
    old = contexts.context("a:1")
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    pid = os.fork()
    if pid == 0:
        try:
            renewed = [contexts.renew()]
            theirs.send(b"forked")
            theirs.recv(10)
            renewed += [contexts.renew(), contexts.renew()]
            names = [shake(contexts.context(name), authority)[0] for name in ("a:1", "b:1")]
            theirs.send(repr((renewed, names)).encode())
        finally:
            os._exit(0)
    with ours, theirs:
        assert ours.recv(10) == b"forked"
        # Another set-up may have other addresses: those that it does not name stay.
        contexts.replace({"a:1": Profile((second,)), "c:1": Profile((second,))})
        ours.send(b"go on")
        assert ours.recv(1000).decode() == repr(([False, True, False], ["second", "first"]))
        os.waitpid(pid, 0)
    assert shake(contexts.context("a:1"), authority)[0] == "second"
    assert shake(old, authority)[0] == "first", "a connection goes on with what it has begun with"


def test_what_cannot_be_served_changes_nothing(authority: Authority) -> None:
    first = Profile((material(authority, "first"),))
    contexts = Contexts({"a:1": first})
    with pytest.raises(MaterialError):
        contexts.replace({"a:1": Profile((Material("", ""),))})
    assert contexts.profiles == {"a:1": first}
    assert not contexts.renew()


def test_a_later_program_goes_on_in_the_same_memory(authority: Authority) -> None:
    first, second = Profile((material(authority, "first"),)), Profile((material(authority, "second"),))
    worker = Contexts({"a:1": first})
    later = Contexts({"a:1": first})
    later.adopt(os.dup(worker.descriptor))
    later.replace({"a:1": second})
    assert worker.renew()
    assert shake(worker.context("a:1"), authority)[0] == "second"


def test_text_that_is_being_replaced_is_not_read() -> None:
    store = Store()
    assert store.version() == 0
    assert store.read() is None
    store.write(2, "hello")
    assert store.read() == (2, "hello")
    os.pwrite(store.descriptor, b"HE", 44)  # half of what the master is about to write
    assert store.read() is None
    assert store.version() == 2


def test_without_memory_that_has_a_descriptor_files_do(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")  # as on macOS
    contexts = Contexts({"a:1": Profile((material(authority, "first"),))})
    contexts.replace({"a:1": Profile((material(authority, "second"),))})
    assert shake(contexts.context("a:1"), authority)[0] == "second"
