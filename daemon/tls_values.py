"""The kinds of value of the TLS options, and what an address of a TOML file may have for itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Final

from preforkd.daemon import address
from preforkd.daemon.values import Addresses, Choice, Flag, Kind, Text, quoted, written
from preforkd.workers.records import dataclass


@dataclass(frozen=True, slots=True)
class TlsVersion(Choice):
    """A version of TLS; a number of TOML is taken as well."""

    words: tuple[str, ...] = ("1.2", "1.3")

    def read(self, raw: object) -> str:
        """See `Kind.read`."""
        return Choice.read(self, str(raw) if isinstance(raw, float) else raw)


@dataclass(frozen=True, slots=True)
class Secret(Text):
    """A password: text, `@FILE` whose first line it is, or `$VARIABLE` of the environment. It is never shown."""

    metavar: str = "@FILE|$VARIABLE"

    def read(self, raw: object) -> str:
        """See `Kind.read`."""
        try:
            text = Text.read(self, raw)
        except ValueError:
            raise ValueError("the password is not a line of text") from None
        if text in ("@", "$"):
            raise ValueError(f'"{text}" names nothing: write @FILE or $VARIABLE')
        return text

    def write(self, value: object) -> str:
        """See `Kind.write`."""
        text = str(value)
        return written(text if text[:1] in ("", "@", "$") else "***")


TLS_SETTINGS: Final[Mapping[str, Kind]] = {
    "certfile": Text("FILE"),
    "keyfile": Text("FILE"),
    "keyfile_password": Secret(),
    "tls_min": TlsVersion(),
    "ciphers": Text("LIST"),
    "ca_certs": Text("FILE"),
    "cert_reqs": Choice(("none", "optional", "required")),
}
"""The options that an address may have for itself."""


@dataclass(frozen=True, slots=True)
class Binds(Addresses):
    """Addresses to bind. In TOML one may be a table, with TLS settings that count for it alone."""

    speak_tls: ClassVar[bool] = True

    @staticmethod
    def _address(text: object) -> address.Address:
        return _from_table(text) if isinstance(text, Mapping) else Addresses._address(text)

    def write(self, value: object) -> str:
        """See `Kind.write`."""
        if not isinstance(value, tuple):
            raise TypeError(f"addresses are a tuple, not {value!r}")
        return f"[{', '.join(map(_as_toml, value))}]"


def _from_table(table: Mapping[str, object]) -> address.Address:
    name = table.get("address")
    if not isinstance(name, str):
        raise ValueError('a table without an address: write { address = "0.0.0.0:8443", certfile = "..." }')  # noqa: TRY004 - one error for all kinds
    bare = address.parse(name)
    settings: list[tuple[str, object]] = []
    secure = bare.tls is not None
    for key, raw in table.items():
        if key == "tls":
            secure = _flag(name, raw)
        elif key in TLS_SETTINGS:
            settings.append((key, _setting(name, key, raw)))
        elif key != "address":
            raise ValueError(f'"{name}": an address has no {quoted(key)}, only tls, {", ".join(TLS_SETTINGS)}')
    if settings and table.get("tls") is False:
        raise ValueError(f'"{name}": tls is false, and {settings[0][0]} is given')
    if secure or settings:
        return replace(bare, tls=address.Secured(tuple(settings)))
    return replace(bare, tls=None, is_plain=True)


def _flag(name: str, raw: object) -> bool:
    try:
        return Flag().read(raw)
    except ValueError as exc:
        raise ValueError(f'"{name}": tls: {exc}') from exc


def _setting(name: str, key: str, raw: object) -> object:
    try:
        return TLS_SETTINGS[key].read(raw)
    except ValueError as exc:
        raise ValueError(f'"{name}": {key}: {exc}') from exc


def _as_toml(one: address.Address) -> str:
    settings = one.tls.settings if one.tls else ()
    if not settings and not one.is_plain:
        return written(str(one))
    parts = [f"address = {written(str(replace(one, tls=None)))}"]
    parts += ["tls = false"] if one.is_plain else []
    parts += [f"{key} = {TLS_SETTINGS[key].write(value)}" for key, value in settings]
    return f"{{ {', '.join(parts)} }}"


@dataclass(frozen=True, slots=True)
class NamedCertificate:
    """A certificate for the clients that ask for one of its names.

    Attributes:
        certfile, keyfile, keyfile_password: as the options.
        names: host names, `*.` and a domain among them; empty: those that it has been issued for.
    """

    certfile: str
    keyfile: str = ""
    keyfile_password: str = ""
    names: tuple[str, ...] = ()


_PARTS: Final = ("certfile", "keyfile", "keyfile_password", "names")


@dataclass(frozen=True, slots=True)
class NamedCertificates:
    """Certificates beside the first: text `CERTFILE` or `CERTFILE:KEYFILE`, or tables of TOML."""

    metavar: str = "CERTFILE[:KEYFILE]"

    def read(self, raw: object) -> tuple[NamedCertificate, ...]:
        """See `Kind.read`."""
        items = [part.strip() for part in raw.split(",")] if isinstance(raw, str) else raw
        if not isinstance(items, Sequence):
            raise ValueError(f'{quoted(raw)} is not a certificate: write [[sni_certificate]] with certfile = "..."')  # noqa: TRY004 - one error for all kinds
        return tuple(self._one(item) for item in items)

    @staticmethod
    def _one(item: object) -> NamedCertificate:
        if isinstance(item, str):
            certfile, _, keyfile = item.partition(":")
            item = {"certfile": certfile, "keyfile": keyfile}
        if not isinstance(item, Mapping):
            raise ValueError(f'{quoted(item)} is not a certificate: write "CERTFILE:KEYFILE"')  # noqa: TRY004 - one error for all kinds
        if unknown := [key for key in item if key not in _PARTS]:
            raise ValueError(f"a certificate has no {quoted(unknown[0])}, only {', '.join(_PARTS)}")
        if not item.get("certfile"):
            raise ValueError("a certificate without a file: give its certfile")
        fields: dict[str, Any] = {key: TLS_SETTINGS[key].read(item[key]) for key in _PARTS[:3] if key in item}
        return NamedCertificate(**fields, names=_names(item.get("names", ())))

    def write(self, value: object) -> str:
        """See `Kind.write`."""
        if not isinstance(value, tuple):
            raise TypeError(f"certificates are a tuple, not {value!r}")
        return f"[{', '.join(map(self._write_one, value))}]"

    @staticmethod
    def _write_one(one: NamedCertificate) -> str:
        given = {key: getattr(one, key) for key in _PARTS[:3] if getattr(one, key)}
        parts = [f"{key} = {TLS_SETTINGS[key].write(value)}" for key, value in given.items()]
        parts += [f"names = {json.dumps(one.names, ensure_ascii=False)}"] if one.names else []
        return f"{{ {', '.join(parts)} }}"


def _names(raw: object) -> tuple[str, ...]:
    if isinstance(raw, str) or not isinstance(raw, Sequence) or not all(isinstance(name, str) for name in raw):
        raise ValueError(f'names: {quoted(raw)} is not a list of host names: write ["example.com", "*.example.com"]')
    for name in raw:
        if "*" in name.removeprefix("*.") or not name.isascii() or " " in name or not name:
            raise ValueError(f'names: {quoted(name)} is not a host name, or "*." and a domain')
    return tuple(raw)
