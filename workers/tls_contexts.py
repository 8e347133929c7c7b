"""The TLS contexts of a daemon's addresses: made of PEM text, shared by fork, renewed in place.

The master makes them, so that workers that were forked from it have one key for session tickets, and a client resumes
its session at any of them. What is renewed later reaches the workers through shared memory, as text: a worker has
given up the rights to read the files, and OpenSSL's contexts are not shared. A connection keeps the context that it
has begun with.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import ssl
import struct
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final
from weakref import finalize

from preforkd.workers.tls_names import certificate_for, table_of

ALPN: Final = ["http/1.1"]
DEFAULT_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2: forward secrecy and authenticated encryption only; TLS 1.3 has nothing else."""
VERIFY: Final = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
LEAST: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_HEAD: Final = struct.Struct("!QI32s")
_READ_TRIES: Final = 50
_READ_PAUSE: Final = 0.002


class MaterialError(Exception):
    """A certificate, a key or a setting that cannot be served with; the text says why."""


@dataclass(frozen=True, slots=True)
class Material:
    """A certificate and its key.

    Attributes:
        certificate: PEM text: the certificate, then those that lead to its root.
        key: PEM text.
        password: of the key; empty when it has none.
        names: host names that clients ask for it by.
    """

    certificate: str
    key: str
    password: str = ""
    names: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Without the key: it must not get into a log."""
        return f"Material(names={self.names})"


@dataclass(frozen=True, slots=True)
class Profile:
    """How an address speaks TLS.

    Attributes:
        materials: the certificate that clients get, and behind it those that some names get instead.
        ca_certs: PEM text of the authorities whose client certificates are taken; empty: none are asked for.
        cert_reqs: "none", "optional" or "required".
        tls_min: "1.2" or "1.3".
        ciphers: of TLS 1.2, as OpenSSL writes them; empty: our own choice.
    """

    materials: tuple[Material, ...]
    ca_certs: str = ""
    cert_reqs: str = "none"
    tls_min: str = "1.2"
    ciphers: str = ""


class ServerTls(ssl.SSLObject):
    """The TLS of one connection; `server_name` is what its client has asked for, None when it has not."""

    server_name: str | None = None


def make_context(profile: Profile) -> ssl.SSLContext:
    """Return the context of an address.

    Raises:
        MaterialError: it cannot be served.
    """
    contexts = [_context(profile, material) for material in profile.materials]
    table = table_of([(), *(material.names for material in profile.materials[1:])])

    def choose(tls: ServerTls, name: str | None, _: ssl.SSLContext) -> None:
        tls.server_name = name
        if table and (index := certificate_for(name, table)):
            tls.context = contexts[index]

    contexts[0].sni_callback = choose  # type: ignore[assignment]  # typeshed knows no class for `sslobject_class`
    return contexts[0]


def _context(profile: Profile, material: Material) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslobject_class = ServerTls
    context.minimum_version = LEAST[profile.tls_min]
    # A client could have us reckon for it again and again (CVE-2011-1473). OpenSSL 3 refuses by itself, 1.1.1 does not.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(ALPN)
    # Of TLS 1.3. OpenSSL sends two, each 10 of 165 us of a handshake; a client that has used its one gets the next.
    context.num_tickets = 1
    try:
        context.set_ciphers(profile.ciphers or DEFAULT_CIPHERS)
    except ssl.SSLError:
        raise MaterialError(f'OpenSSL knows no cipher of TLS 1.2 among "{profile.ciphers}"') from None
    load_pair(context, material)
    context.verify_mode = VERIFY[profile.cert_reqs]
    if profile.ca_certs:
        try:
            context.load_verify_locations(cadata=profile.ca_certs)
        except ssl.SSLError as exc:
            raise MaterialError(f"the authorities (ca_certs) cannot be read: {reason_of(exc)}") from exc
    return context


def load_pair(context: ssl.SSLContext, material: Material) -> None:
    """Load a certificate and its key into a context.

    Raises:
        MaterialError: they are not what they should be, or do not fit.
    """
    if "-----BEGIN CERTIFICATE-----" not in material.certificate:
        raise MaterialError("there is no certificate in it (PEM: -----BEGIN CERTIFICATE-----)")
    if "PRIVATE KEY-----" not in material.key:
        raise MaterialError("there is no private key in it (PEM: -----BEGIN PRIVATE KEY-----)")
    encrypted = "ENCRYPTED" in material.key
    if encrypted and not material.password:
        raise MaterialError("the key is encrypted: give its password by keyfile_password")
    try:
        with _as_file(material.certificate) as certificate, _as_file(material.key) as key:
            # The function, for without one OpenSSL would ask for the password on the terminal.
            context.load_cert_chain(certificate, key, lambda: material.password)
    except ssl.SSLError as exc:
        if exc.reason == "KEY_VALUES_MISMATCH":
            raise MaterialError("the key does not fit the certificate") from exc
        if encrypted:
            raise MaterialError("the key cannot be decrypted: is the password right?") from exc
        raise MaterialError(f"OpenSSL cannot load it: {reason_of(exc)}") from exc
    except OSError as exc:
        raise MaterialError(f"there is no memory to lend it to OpenSSL: {exc}") from exc


def reason_of(exc: ssl.SSLError) -> str:
    """Return what OpenSSL says, in lower case and without where in its source."""
    return (exc.reason or str(exc)).replace("_", " ").lower()


@contextlib.contextmanager
def _as_file(text: str) -> Iterator[str]:
    """Lend text to OpenSSL, which reads certificates and keys from files alone."""
    if hasattr(os, "memfd_create") and os.path.exists("/proc/self/fd"):  # noqa: PTH110 - as short as it can be said
        descriptor = os.memfd_create("preforkd-pem", os.MFD_CLOEXEC)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            yield f"/proc/self/fd/{descriptor}"
        return
    with tempfile.NamedTemporaryFile("w") as file:  # for its owner alone; macOS
        file.write(text)
        file.flush()
        yield file.name


class Store:
    """Text in memory that a master writes and its workers read; each version with its digest, for want of a lock.

    Args:
        descriptor: of the memory that the program before this one has made, or None for a new one.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self.descriptor: Final = _memory() if descriptor is None else descriptor
        # Not at the end of the process: a worker has closed those that are not its own, and may use the numbers.
        finalize(self, os.close, self.descriptor).atexit = False

    def write(self, version: int, text: str) -> None:
        """Replace the text."""
        data = text.encode()
        os.pwrite(self.descriptor, data, _HEAD.size)
        os.pwrite(self.descriptor, _HEAD.pack(version, len(data), hashlib.sha256(data).digest()), 0)
        os.ftruncate(self.descriptor, _HEAD.size + len(data))  # no key stays behind a shorter text

    def version(self) -> int:
        """Return the version that is there; 0 when none is."""
        head = os.pread(self.descriptor, _HEAD.size, 0)
        return int(_HEAD.unpack(head)[0]) if len(head) == _HEAD.size else 0

    def read(self) -> tuple[int, str] | None:
        """Return version and text; None when there is none, or it is being replaced all the time."""
        for _ in range(_READ_TRIES):
            head = os.pread(self.descriptor, _HEAD.size, 0)
            if len(head) < _HEAD.size:
                return None
            version, length, digest = _HEAD.unpack(head)
            data = os.pread(self.descriptor, length, _HEAD.size)
            if hashlib.sha256(data).digest() == digest:
                return version, data.decode()
            time.sleep(_READ_PAUSE)  # the master writes right now
        return None


def _memory() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("preforkd-tls", os.MFD_CLOEXEC)
    descriptor, path = tempfile.mkstemp()
    os.unlink(path)  # noqa: PTH108 - what mkstemp() has returned
    return descriptor


class Contexts:
    """The contexts of all addresses that speak TLS, by the name of the address.

    Args:
        profiles: how each address speaks TLS.

    Raises:
        MaterialError: one of them cannot be served.
    """

    def __init__(self, profiles: Mapping[str, Profile]) -> None:
        self.profiles = dict(profiles)
        self._contexts = {name: make_context(profile) for name, profile in profiles.items()}
        self._version = 1
        self._store = Store()

    @property
    def descriptor(self) -> int:
        """Of the memory through which workers get what is new."""
        return self._store.descriptor

    def context(self, name: str) -> ssl.SSLContext:
        """Return the context for the next connection of an address."""
        return self._contexts[name]

    # The master's side

    def replace(self, profiles: Mapping[str, Profile]) -> None:
        """Serve by these from now on, in this process, in those forked later, and in others when they `renew()`.

        Raises:
            MaterialError: one of them cannot be served; nothing has changed.
        """
        contexts = {name: make_context(profile) for name, profile in profiles.items()}
        self.profiles = dict(profiles)
        self._contexts = contexts
        self._version += 1
        self._store.write(self._version, _pack(profiles))

    def adopt(self, descriptor: int) -> None:
        """Go on with the memory of the program before this one: its workers read there."""
        self._store = Store(descriptor)
        self._version = max(self._store.version(), 1)

    # A worker's side

    def renew(self) -> bool:
        """Take what the master has written since; tells whether there was anything.

        Raises:
            MaterialError: it cannot be served, or not be read; nothing has changed.
        """
        if self._store.version() <= self._version:
            return False
        found = self._store.read()
        if found is None:
            raise MaterialError("the new certificates cannot be read from the memory shared with the master")
        version, text = found
        # Addresses that the other side does not know stay as they are: after an upgrade it may have other ones.
        contexts = {name: make_context(one) for name, one in _unpack(text).items() if name in self._contexts}
        self._contexts |= contexts
        self._version = version
        return True


def _pack(profiles: Mapping[str, Profile]) -> str:
    return json.dumps({name: asdict(profile) for name, profile in profiles.items()})


def _unpack(text: str) -> dict[str, Profile]:
    def profile(fields: dict[str, Any]) -> Profile:
        materials = tuple(Material(**{**one, "names": tuple(one["names"])}) for one in fields.pop("materials"))
        return Profile(materials, **fields)

    return {name: profile(fields) for name, fields in json.loads(text).items()}
