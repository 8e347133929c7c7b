"""The certificates of a daemon: read by the master, tried out before anything is forked, renewed while it serves.

The files are read here alone: workers may have no right to. What the files say of themselves comes from a handshake in
memory with a client that trusts them, for the `ssl` module decodes only what it has verified.
"""

from __future__ import annotations

import os
import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from preforkd.daemon import rotation
from preforkd.daemon.address import Address
from preforkd.daemon.tls_specs import PairSpec, TlsSpec
from preforkd.workers import log
from preforkd.workers.tls_contexts import Contexts, Material, MaterialError, Profile, make_context, reason_of
from preforkd.workers.tls_names import names_in

_BLOCK: Final = "-----BEGIN {kind}-----.*?-----END {kind}-----"
_CERTIFICATES: Final = re.compile(_BLOCK.format(kind="CERTIFICATE"), re.DOTALL)
_KEYS: Final = re.compile(r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?-----END \1-----", re.DOTALL)
_NO_CHECK_TIME: Final = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which the module has no name for: we check the time, and say what it is."""
MOST: Final = 4 << 20
"""Bytes of a file at most: a certificate, a key and a bundle of authorities are less."""


class CertificateError(Exception):
    """Certificates that cannot be served.

    Attributes:
        errors: one line each: who has asked for what, and what is wrong.
    """

    def __init__(self, errors: list[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors


@dataclass(frozen=True, slots=True)
class Life:
    """From when to when a certificate can be used, seconds since 1970."""

    path: str
    not_before: float
    not_after: float


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was read: how each address speaks TLS, and how long the certificates live."""

    profiles: dict[str, Profile]
    lives: tuple[Life, ...]


def key_of(address: Address) -> str:
    """Return the name of an address among the contexts."""
    return str(replace(address, tls=None))


def signature_of(specs: Mapping[Address, TlsSpec]) -> rotation.Signature:
    """Return what the files look like now; links are followed, so that a switched one is seen."""
    return tuple(map(_look_of, files_of(specs)))


def files_of(specs: Mapping[Address, TlsSpec]) -> list[str]:
    """Return the paths of all files, each once."""
    paths: dict[str, None] = {}
    for spec in specs.values():
        for pair in spec.pairs:
            paths |= dict.fromkeys((pair.certfile, pair.keyfile))
            if pair.password.startswith("@"):
                paths[pair.password[1:]] = None
        if spec.ca_certs:
            paths[spec.ca_certs] = None
    return list(paths)


def _look_of(path: str) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - once a second for each
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def load(specs: Mapping[Address, TlsSpec], environ: Mapping[str, str], now: float) -> Loaded:
    """Read the files, and try out what is in them.

    Args:
        specs: how each address is to speak TLS.
        environ: where passwords may be.
        now: the time, seconds since 1970.

    Raises:
        CertificateError: something of it cannot be served; all that is wrong.
    """
    errors: list[str] = []
    pairs: dict[PairSpec, tuple[Material, Life]] = {}
    for pair in dict.fromkeys(pair for spec in specs.values() for pair in spec.pairs):
        try:
            pairs[pair] = _load_pair(pair, environ, now)
        except _UnfitError as exc:
            errors.append(f"{pair.origin}: {exc}")
    profiles: dict[str, Profile] = {}
    for address, spec in specs.items():
        try:
            profiles[key_of(address)] = _profile(spec, pairs)
        except _UnfitError as exc:
            errors.append(str(exc))
    if errors:
        raise CertificateError(list(dict.fromkeys(errors)))
    return Loaded(profiles, tuple(dict.fromkeys(life for _, life in pairs.values())))


def _profile(spec: TlsSpec, pairs: Mapping[PairSpec, tuple[Material, Life]]) -> Profile:
    """Return how an address speaks TLS; of its pairs those that could be loaded.

    Raises:
        _UnfitError: its authorities or its ciphers cannot be used.
    """
    authorities = ""
    if spec.ca_certs:
        try:
            authorities = _blocks(_CERTIFICATES, spec.ca_certs, "certificate (PEM: -----BEGIN CERTIFICATE-----)")
        except _UnfitError as exc:
            raise _UnfitError(f"{spec.origins['ca_certs']}: {exc}") from exc
    materials = tuple(pairs[pair][0] for pair in spec.pairs if pair in pairs)
    profile = Profile(materials, authorities, spec.cert_reqs, spec.tls_min, spec.ciphers)
    if materials:
        try:
            make_context(profile)
        except MaterialError as exc:  # of the pairs nothing is wrong
            raise _UnfitError(f"{spec.origins['ciphers' if spec.ciphers else 'ca_certs']}: {exc}") from exc
    return profile


def _load_pair(pair: PairSpec, environ: Mapping[str, str], now: float) -> tuple[Material, Life]:
    """Return a certificate with its key, and how long it lives.

    Raises:
        _UnfitError: it cannot be served.
    """
    material = Material(
        certificate=_blocks(_CERTIFICATES, pair.certfile, "certificate (PEM: -----BEGIN CERTIFICATE-----)"),
        key=_blocks(_KEYS, pair.keyfile, "private key (PEM: -----BEGIN PRIVATE KEY-----)"),
        password=_password(pair.password, environ),
    )
    try:
        names, life = _inspect(pair.certfile, material)
    except MaterialError as exc:
        where = pair.certfile if pair.certfile == pair.keyfile else f"{pair.certfile} and {pair.keyfile}"
        raise _UnfitError(f"{where}: {exc}") from exc
    if life.not_after <= now:
        raise _UnfitError(rotation.warning(pair.certfile, life.not_after, now))
    return replace(material, names=pair.names or names), life


class _UnfitError(Exception):
    """A file that is not what it should be; the text names it."""


def _blocks(pattern: re.Pattern[str], path: str, what: str) -> str:
    """Only the blocks that are wanted: around them people write in any language, and OpenSSL takes ASCII."""
    found = "".join(f"{match[0]}\n" for match in pattern.finditer(_text(path)))
    if not found:
        raise _UnfitError(f"{path} holds no {what}")
    return found


def _text(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            return file.read(MOST).decode("latin-1")
    except FileNotFoundError:
        raise _UnfitError(f"{path} does not exist") from None
    except OSError as exc:
        raise _UnfitError(f"{path} cannot be read: {exc.strerror}") from exc


def _password(given: str, environ: Mapping[str, str]) -> str:
    if given.startswith("@"):
        lines = _text(given[1:]).splitlines()
        return lines[0] if lines else ""
    if given.startswith("$"):
        if given[1:] not in environ:
            raise _UnfitError(f"there is no variable {given[1:]} in the environment")
        return environ[given[1:]]
    return given


def _inspect(path: str, material: Material) -> tuple[tuple[str, ...], Life]:
    """Return the names and the life of a certificate, by a handshake with a client that trusts it.

    Raises:
        MaterialError: it cannot be served, or no client would take it.
    """
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname = False
    server_context = make_context(Profile((material,)))
    try:
        client_context.load_verify_locations(cadata=material.certificate)
        client_context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
        found = _shake_hands(server_context, client_context)
    except ssl.SSLCertVerificationError as exc:
        raise MaterialError(f"no client would take the certificate: {exc.verify_message}") from exc
    except ssl.SSLError as exc:
        raise MaterialError(f"a handshake with it fails: {reason_of(exc)}") from exc
    life = Life(path, *(float(ssl.cert_time_to_seconds(str(found[key]))) for key in ("notBefore", "notAfter")))
    return names_in(found), life


def _shake_hands(server_context: ssl.SSLContext, client_context: ssl.SSLContext) -> Mapping[str, object]:
    """Return what the client has learnt of the server's certificate."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client, server = client_context.wrap_bio(down, up), server_context.wrap_bio(up, down, server_side=True)
    for side in (client, server, client):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return client.getpeercert() or {}


class Certificates:
    """What the addresses of a configuration speak TLS with, and whether there is something newer.

    Args:
        specs: how each address is to speak TLS.
        environ: where passwords may be.
        clock: the time, seconds since 1970.

    Raises:
        CertificateError: something of it cannot be served.
    """

    def __init__(
        self,
        specs: Mapping[Address, TlsSpec],
        environ: Mapping[str, str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._specs = specs
        self._environ = environ
        self._clock = clock
        self._watch = rotation.Watch(signature_of(specs))
        self._loaded = load(specs, environ, clock())
        self._told: dict[Life, int] = {}
        self.contexts = Contexts(self._loaded.profiles)

    def speak(self, addresses: Mapping[int, Address]) -> dict[int, str]:
        """Return the names of the contexts of those listeners that speak TLS, by their descriptors."""
        return {fd: key_of(address) for fd, address in addresses.items() if address in self._specs}

    @property
    def expires(self) -> float:
        """When the first of the certificates expires that are served now, seconds since 1970."""
        return min((life.not_after for life in self._loaded.lives), default=0.0)

    def look(self, at: float) -> bool:
        """Renew what has changed, and say what is to be said of the end of certificates; tells as `renew` does."""
        is_new = self.renew(at)
        if is_new:
            log.LOGGER.info("the certificates have changed: new connections get the new ones")
        for warning in self.warnings():
            log.LOGGER.warning("%s", warning)
        return is_new

    def renew(self, at: float) -> bool:
        """Look whether the files have changed, and serve by them if they can be; tells whether that is so.

        Args:
            at: seconds of the monotonic clock.
        """
        now = signature_of(self._specs)
        self._watch, is_due = rotation.seen(self._watch, now, at)
        if not is_due:
            return False
        try:
            loaded = load(self._specs, self._environ, self._clock())
            if signature_of(self._specs) != now:
                return False  # written to meanwhile: what was read may be of two sets
            is_new = loaded.profiles != self._loaded.profiles
            if is_new:
                self.contexts.replace(loaded.profiles)
        except (CertificateError, MaterialError) as exc:
            self._watch, is_final = rotation.failed(self._watch, at)
            if is_final:
                for error in str(exc).splitlines():
                    log.LOGGER.error("changed certificates are refused: %s; the old ones stay in use", error)
            return False
        self._watch, self._loaded = rotation.Watch(now), loaded
        return is_new

    def warnings(self) -> Iterator[str]:
        """Yield what is to be said of the end of certificates, each once."""
        now = self._clock()
        for life in self._loaded.lives:
            stage = rotation.stage(life.not_before, life.not_after, now)
            if stage > self._told.get(life, 0):
                yield rotation.warning(life.path, life.not_after, now)
            elif life not in self._told and now < life.not_before:
                yield f"the certificate {life.path} cannot be used yet: is the clock right?"
            self._told[life] = stage
