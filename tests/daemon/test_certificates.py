"""Certificates as the master has them: read, tried out, renewed when they change, and their end told of."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from preforkd.daemon.address import parse
from preforkd.daemon.certificates import CertificateError, Certificates, load
from preforkd.daemon.rotation import DAY, SETTLED
from preforkd.daemon.tls_specs import PairSpec, TlsSpec
from tests.certificates import RSA, Authority, needs_openssl

pytestmark = needs_openssl

ADDRESS = parse("127.0.0.1:8443")


class Folder:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder)
        self.certificate, self.key = folder / "tls.crt", folder / "tls.key"
        self.now = 0.0
        self.write("first")

    def write(self, name: str, days: int = 30) -> None:
        pair = self.authority.issue(name, "localhost", "*.shop.test", days=days)
        for source, target in zip(pair, (self.certificate, self.key), strict=True):
            shutil.copy(source, target)

    def pair(self, password: str = "") -> PairSpec:
        return PairSpec("certfile", str(self.certificate), str(self.key), password)

    def spec(self, **changes: str) -> TlsSpec:
        values = {"ca_certs": "", "cert_reqs": "none", "tls_min": "1.2", "ciphers": "", **changes}
        return TlsSpec((self.pair(),), origins={"ca_certs": "ca_certs", "ciphers": "ciphers"}, **values)

    def certificates(self) -> Certificates:
        return Certificates({ADDRESS: self.spec()}, {}, lambda: self.now)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_a_certificate_says_its_names_and_its_life(folder: Folder) -> None:
    loaded = load({ADDRESS: folder.spec()}, {}, 0.0)
    (material,) = loaded.profiles["127.0.0.1:8443"].materials
    assert material.names == ("localhost", "*.shop.test")
    (life,) = loaded.lives
    assert 29.9 * DAY < life.not_after - life.not_before < 30.1 * DAY


@pytest.mark.parametrize("key", [RSA, ("-newkey", "ed25519"), ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384")])
def test_keys_of_all_usual_kinds_serve(folder: Folder, key: tuple[str, ...]) -> None:
    pair = folder.authority.issue("other", "localhost", key=key)
    for source, target in zip(pair, (folder.certificate, folder.key), strict=True):
        shutil.copy(source, target)
    assert load({ADDRESS: folder.spec()}, {}, 0.0)


def test_text_around_the_blocks_may_be_in_any_language_and_one_file_may_hold_all(folder: Folder) -> None:
    text = f"# Schlüssel für übermorgen\n{folder.key.read_text()}\n# świadectwo\n{folder.certificate.read_text()}"
    folder.certificate.write_text(text)
    folder.key.write_text(text)
    assert load({ADDRESS: folder.spec()}, {}, 0.0)


def test_all_that_is_wrong_is_said(folder: Folder) -> None:
    other = PairSpec("sni", str(folder.folder / "none.crt"), str(folder.key))
    spec = TlsSpec(
        (folder.pair("$NOTHING"), other), str(folder.key), "none", "1.2", "", {"ca_certs": "ca", "ciphers": "c"}
    )
    with pytest.raises(CertificateError) as raised:
        load({ADDRESS: spec}, {}, 0.0)
    assert raised.value.errors == [
        "certfile: there is no variable NOTHING in the environment",
        f"sni: {folder.folder / 'none.crt'} does not exist",
        f"ca: {folder.key} holds no certificate (PEM: -----BEGIN CERTIFICATE-----)",
    ]


def test_the_time_decides_what_has_expired(folder: Folder) -> None:
    load({ADDRESS: folder.spec()}, {}, 0.0)
    with pytest.raises(CertificateError, match="has expired on"):
        load({ADDRESS: folder.spec()}, {}, 4e9)


def test_what_has_not_changed_is_not_loaded_and_what_has_is(folder: Folder) -> None:
    certificates = folder.certificates()
    before = certificates.contexts.context("127.0.0.1:8443")
    assert not certificates.renew(0.0)
    folder.write("second")
    assert certificates.renew(1.0)
    assert not certificates.renew(2.0)
    assert certificates.contexts.context("127.0.0.1:8443") is not before


def test_files_that_are_only_touched_are_no_news(folder: Folder) -> None:
    certificates = folder.certificates()
    folder.key.touch()
    assert not certificates.renew(1.0)


def test_half_a_set_waits_for_its_other_half(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    certificates = folder.certificates()
    certificate, key = folder.authority.issue("second", "localhost")
    shutil.copy(key, folder.key)
    assert not certificates.renew(1.0)
    assert not certificates.renew(2.0)
    assert not caplog.records
    shutil.copy(certificate, folder.certificate)
    assert certificates.renew(3.0)


def test_what_stays_wrong_is_said_once(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    certificates = folder.certificates()
    folder.certificate.unlink()
    for second in range(20):
        assert not certificates.renew(float(second))
    (record,) = caplog.records
    assert "does not exist; the old ones stay in use" in record.getMessage()
    assert SETTLED < 10, "a good set has to be loaded within 10 s"


def test_the_end_is_told_of_at_each_stage_once(folder: Folder) -> None:
    folder.authority.backdate(folder.certificate, age=60, left=30)
    certificates = folder.certificates()
    (life,) = load({ADDRESS: folder.spec()}, {}, 0.0).lives
    told = {}
    for days in (20, 14, 13, 2, 1, 0.5, 0, -1):
        folder.now = life.not_after - days * DAY
        told[days] = list(certificates.warnings())
    assert [days for days, lines in told.items() if lines] == [14, 1, 0]
    assert "expires in 14 days" in told[14][0]
    assert "has expired" in told[0][0]


def test_a_certificate_of_tomorrow_is_told_of(folder: Folder) -> None:
    certificates = folder.certificates()
    folder.now = 1.0
    assert ["cannot be used yet: is the clock right?" in line for line in certificates.warnings()] == [True]
    assert not list(certificates.warnings())


def test_the_end_of_the_first_certificate_that_expires_is_known_and_follows_a_renewal(folder: Folder) -> None:
    certificates = folder.certificates()
    first = certificates.expires
    assert first == load({ADDRESS: folder.spec()}, {}, 0.0).lives[0].not_after
    folder.write("second", days=60)
    assert certificates.look(1.0)
    assert 29.9 * DAY < certificates.expires - first < 30.1 * DAY
    other = folder.authority.issue("short", "localhost", days=3)
    spec = folder.spec()
    pairs = (*spec.pairs, PairSpec("sni_certificate", str(other[0]), str(other[1]), ""))
    both = Certificates({ADDRESS: replace(spec, pairs=pairs)}, {}, lambda: folder.now)
    assert both.expires < first
