"""Certificates for tests, made by openssl: an authority, and what it issues."""

from __future__ import annotations

import datetime
import shutil
import ssl
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")

EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
RSA = ("-newkey", "rsa:2048")


def openssl(*arguments: str | Path) -> str:
    """Run openssl; return what it prints."""
    return subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, text=True).stdout


def trusting(certificate: Path) -> ssl.SSLContext:
    """Return a context of a client that trusts one authority alone."""
    return ssl.create_default_context(cafile=certificate)


class Authority:
    """A private authority with files of its own.

    Args:
        folder: where its files, and those of what it issues, are.
        name: of the authority.
    """

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self.certificate, self._key = folder / f"{name}.pem", folder / f"{name}.key"
        openssl(
            "req", "-x509", *EC, "-nodes", "-days", "30", "-subj", f"/CN={name}",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign",  # Python 3.13 wants it said
            "-keyout", self._key, "-out", self.certificate,
        )  # fmt: skip

    def issue(
        self,
        name: str,
        *names: str,
        days: int = 30,
        key: Sequence[str] = EC,
        subject: str = "",
        password: str = "",
        usage: str = "serverAuth,clientAuth",
    ) -> tuple[Path, Path]:
        """Issue a certificate.

        Args:
            name: of its files.
            names: host names that it is for; IP addresses too.
            days: that it lives; below 0: it has expired.
            key: arguments that say what key.
            subject: as openssl writes it; its common name is that of the files when it is empty.
            password: of its key.
            usage: what it may be used for.

        Returns:
            The paths of certificate and key.
        """
        certificate, private = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        kinds = ",".join(f"{'IP' if one[-1].isdigit() else 'DNS'}:{one}" for one in names)
        extensions = [f"extendedKeyUsage={usage}", "basicConstraints=CA:FALSE"]
        extensions += [f"subjectAltName={kinds}"] if kinds else []
        arguments = [part for one in extensions for part in ("-addext", one)]
        secrecy = ["-passout", f"pass:{password}"] if password else ["-nodes"]
        openssl(
            "req", "-x509", "-CA", self.certificate, "-CAkey", self._key, *key, *secrecy, "-days", str(abs(days)),
            "-utf8", "-subj", subject or f"/CN={name}", *arguments, "-keyout", private, "-out", certificate,
        )  # fmt: skip
        if days < 0:
            openssl("x509", "-in", certificate, "-signkey", private, "-days", str(days), "-out", certificate)
        return certificate, private

    def backdate(self, certificate: Path, age: int, left: int) -> None:
        """Issue a certificate again with another life: it began `age` days ago, and ends in `left` days."""
        now = datetime.datetime.now(datetime.UTC)
        start, end = (now + datetime.timedelta(days=days, hours=1) for days in (-age, left))
        request, config = certificate.with_suffix(".csr"), certificate.with_suffix(".conf")
        config.write_text(
            f"[ca]\ndefault_ca=own\n[own]\ndatabase={certificate}.index\nnew_certs_dir={self._folder}\n"
            "default_md=sha256\npolicy=any\nrand_serial=yes\ncopy_extensions=copy\nunique_subject=no\n"
            "[any]\ncommonName=supplied\n"
        )
        Path(f"{certificate}.index").touch()
        openssl("x509", "-x509toreq", "-in", certificate, "-signkey", certificate.with_suffix(".key"),
                "-copy_extensions", "copy", "-out", request)  # fmt: skip
        openssl("ca", "-batch", "-config", config, "-cert", self.certificate, "-keyfile", self._key, "-in", request,
                "-startdate", f"{start:%Y%m%d%H%M%SZ}", "-enddate", f"{end:%Y%m%d%H%M%SZ}", "-notext",
                "-out", certificate)  # fmt: skip

    def client(self, certificate: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        """Return a context of a client that trusts this authority alone, perhaps with a certificate of its own."""
        context = trusting(self.certificate)
        if certificate is not None:
            context.load_cert_chain(*certificate)
        return context
