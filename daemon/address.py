"""The forms of an address to bind: text to value and back, without touching a socket."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import field, replace
from typing import Any

from preforkd.workers.records import dataclass

SUN_PATH_MAX = 107
"""Bytes of a unix socket path: `sun_path` holds 108 with the closing NUL (on macOS 104: there the bind says so)."""

_DIGITS = re.compile(r"[0-9]{1,20}", re.ASCII)  # int() also takes "+80", "8_0", " 80 " and the digits of other scripts
_LABEL = r"[A-Za-z0-9_][A-Za-z0-9_-]{0,62}"
_HOST_NAME = re.compile(rf"(?=.{{1,254}}\Z){_LABEL}(\.{_LABEL})*\.?", re.ASCII)
_ZONE = re.compile(r"[A-Za-z0-9._~-]+", re.ASCII)  # the interface of a link-local address: fe80::1%eth0
_MODE = re.compile(r"0?[0-7]{3}", re.ASCII)
_EXAMPLES = (
    '"127.0.0.1:8000", ":8000" (every interface), "*:8000" (IPv6 too), "[::1]:8000", "unix:/run/app.sock", "fd:3" or '
    '"systemd:web", with "tls:" before it for TLS'
)


@dataclass(frozen=True, slots=True)
class Secured:
    """That an address speaks TLS.

    Attributes:
        settings: what counts for it alone, by the name of the option.
    """

    settings: tuple[tuple[str, object], ...] = ()


class AddressError(ValueError):
    """The text is not an address; the message says why and what would be right, in one line."""


@dataclass(frozen=True, slots=True)
class _Bindable:
    """What all addresses have in common.

    Attributes:
        tls: how it speaks TLS; None: it is plain. Two addresses that differ in that alone are the same: one socket.
        is_plain: that it is plain was said, and is not only the default.
    """

    tls: Secured | None = field(default=None, compare=False, repr=False, kw_only=True)
    is_plain: bool = field(default=False, compare=False, repr=False, kw_only=True)

    def _named(self, name: str) -> str:
        return f"tls:{name}" if self.tls else name


@dataclass(frozen=True, slots=True)
class TcpAddress(_Bindable):
    """A host and a port.

    Attributes:
        host: an IPv4 or IPv6 address without brackets, a name that is resolved when it is bound, or `*`: every
            interface, IPv4 and IPv6.
        port: 0 lets the system choose one.
    """

    host: str
    port: int

    def __str__(self) -> str:
        """The canonical text, which `parse` reads back."""
        return self._named(self.authority)

    @property
    def authority(self) -> str:
        """Host and port, as in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """What a person types into a browser, or as near as it comes (`http://0.0.0.0:8000` stays as it is)."""
        return f"{'https' if self.tls else 'http'}://{self.authority}"


@dataclass(frozen=True, slots=True)
class UnixAddress(_Bindable):
    """A unix stream socket; two with one path are the same address, whoever may connect to them.

    Attributes:
        path: of the file system, or with a leading `@` a name of Linux' abstract namespace.
        mode: permissions of the file, None: what the umask leaves.
        user: owner of the file, by name or number; empty: the user of the workers.
        group: its group, likewise.
    """

    path: str
    mode: int | None = field(default=None, compare=False)
    user: str = field(default="", compare=False)
    group: str = field(default="", compare=False)

    def __str__(self) -> str:
        """The canonical text, which `parse` reads back."""
        settings = {"mode": "" if self.mode is None else f"{self.mode:03o}", "user": self.user, "group": self.group}
        query = "&".join(f"{name}={value}" for name, value in settings.items() if value)
        return self._named(f"unix:{self.path}" + (f"?{query}" if query else ""))

    @property
    def abstract(self) -> bool:
        """Whether it is a name without a file."""
        return self.path.startswith("@")

    @property
    def url(self) -> str:
        """For the log: there is no URL of HTTP over a unix socket that clients agree on."""
        return self._named(f"unix:{self.path}")

    def under(self, folder: str) -> UnixAddress:
        """The same address with a relative path made absolute, so that a later `chdir` does not move it.

        Args:
            folder: the absolute folder that relative paths start from.
        """
        # pathlib cannot resolve ".." without asking the file system; this module is pure.
        return self if self.abstract else replace(self, path=os.path.normpath(os.path.join(folder, self.path)))  # noqa: PTH118


@dataclass(frozen=True, slots=True)
class FdAddress(_Bindable):
    """A socket that the process inherited, bound by whoever started it.

    Attributes:
        fd: its file descriptor.
    """

    fd: int

    def __str__(self) -> str:
        """The canonical text, which `parse` reads back."""
        return self._named(f"fd:{self.fd}")

    @property
    def url(self) -> str:
        """For the log: the canonical text; the listener knows what the socket is bound to."""
        return str(self)


@dataclass(frozen=True, slots=True)
class SystemdAddress(_Bindable):
    """A socket that systemd has bound and passed to this process.

    Attributes:
        name: as the socket unit calls it (FileDescriptorName=); empty: every socket that was passed.
    """

    name: str

    def __str__(self) -> str:
        """The canonical text, which `parse` reads back."""
        return self._named(f"systemd:{self.name}")

    @property
    def url(self) -> str:
        """For the log: the canonical text; the listener knows what the socket is bound to."""
        return str(self)


Address = TcpAddress | UnixAddress | FdAddress | SystemdAddress


def parse(text: str) -> Address:
    """Read one address.

    Args:
        text: `HOST:PORT`, `:PORT` (every IPv4 interface), `[IPV6]:PORT`, `*:PORT` (every interface of both),
            `unix:PATH`, `unix:PATH?mode=660&user=U&group=G`, `unix:@NAME`, `fd:N`, `systemd:NAME`; with `tls:` before
            it for TLS.

    Raises:
        AddressError: it is none of these.
    """
    scheme, colon, rest = text.partition(":")
    if not text:
        raise AddressError(f"an empty address: write {_EXAMPLES}")
    if not text.isprintable():  # it goes into log lines, and no address needs them
        raise AddressError(f"{text!a} holds characters that cannot be printed")
    if colon and scheme == "tls":
        return _tls(rest)
    if colon and scheme == "unix":
        return _unix(rest)
    if colon and scheme == "fd":
        return _fd(rest)
    if colon and scheme == "systemd":
        return _systemd(rest)
    if colon and rest.startswith("//"):
        raise AddressError(f'"{text}" is a URL: write the address alone, {_EXAMPLES}')
    return _tcp(text)


def _tls(text: str) -> Address:
    if not text or text.startswith("tls:"):
        raise AddressError(f'"tls:{text}": behind "tls:" comes an address, as in "tls:0.0.0.0:8443"')
    return replace(parse(text), tls=Secured())


def _unix(text: str) -> UnixAddress:
    path, mark, query = text.partition("?")
    name = path.removeprefix("@")
    if not name:
        raise AddressError(f'"unix:{path}" has no path: write "unix:/run/app.sock" or "unix:@name"')
    if path.endswith("/") and not path.startswith("@"):
        raise AddressError(f'"unix:{path}" names a folder: write "unix:{path}app.sock"')
    size = len(os.fsencode(path))
    if size > SUN_PATH_MAX:
        raise AddressError(f'"unix:{path}" is too long: {size} bytes, the system takes {SUN_PATH_MAX}')
    if mark and path.startswith("@"):
        raise AddressError(f'"unix:{text}": a name without a file has neither a mode nor an owner')
    return UnixAddress(path, **_file_settings(text, query)) if mark else UnixAddress(path)


def _file_settings(text: str, query: str) -> dict[str, Any]:
    """What stands behind the path of a unix socket."""
    settings: dict[str, Any] = {}
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if name not in ("mode", "user", "group") or not value or name in settings:
            raise AddressError(f'"unix:{text}": behind "?" come mode, user and group, as in "?mode=660&group=www-data"')
        settings[name] = value
    if "mode" in settings:
        if not _MODE.fullmatch(settings["mode"]):
            raise AddressError(
                f'"unix:{text}": "{settings["mode"]}" is not a mode: write three octal digits, as in 660'
            )
        settings["mode"] = int(settings["mode"], 8)
    return settings


def _systemd(name: str) -> SystemdAddress:
    # systemd.socket(5), FileDescriptorName=: no control characters, no colons, 255 characters at most.
    if ":" in name or len(name) > 255:
        raise AddressError(f'"systemd:{name}": write the name that the socket unit gives, as in "systemd:web"')
    return SystemdAddress(name)


def _fd(text: str) -> FdAddress:
    if not _DIGITS.fullmatch(text):
        raise AddressError(f'"fd:{text}": write the number of an inherited file descriptor, as in "fd:3"')
    if int(text) > 0x7FFFFFFF:
        raise AddressError(f'"fd:{text}": no file descriptor has so high a number')
    return FdAddress(int(text))


def _tcp(text: str) -> TcpAddress:
    if "/" in text:
        raise AddressError(f'"{text}" looks like a path: write "unix:{text}" for a unix socket')
    host, colon, port = text.rpartition(":")
    if not colon:
        raise AddressError(_without_port(text))
    if text.startswith("["):
        return TcpAddress(_ipv6(text), _port(text, _after_bracket(text)))
    if ":" in host:
        raise AddressError(f'"{text}": an IPv6 address needs brackets, as in "[::1]:8000"')
    return TcpAddress(_host(text, host) if host else "0.0.0.0", _port(text, port))  # noqa: S104 - ":8000" asks for it


def _without_port(text: str) -> str:
    if _DIGITS.fullmatch(text):
        return f'"{text}" has no host: write "127.0.0.1:{text}" (this machine only) or ":{text}" (every IPv4 interface)'
    return f'"{text}" has no port: write "{text}:8000"'


def _after_bracket(text: str) -> str:
    """The port's text in "[v6]:port"."""
    _, bracket, rest = text.partition("]")
    if not bracket:
        raise AddressError(f'"{text}" lacks the closing bracket: write "[::1]:8000"')
    if not rest:
        raise AddressError(f'"{text}" has no port: write "{text}:8000"')
    if not rest.startswith(":"):
        raise AddressError(f'"{text}": after "]" comes ":" and the port, as in "[::1]:8000"')
    return rest[1:]


def _ipv6(text: str) -> str:
    """The canonical address in "[v6]:port"."""
    inside = text[1:].partition("]")[0]
    address, percent, zone = inside.partition("%")
    if percent and not _ZONE.fullmatch(zone):
        raise AddressError(f'"{text}": "{zone}" is not an interface')
    try:
        return str(ipaddress.IPv6Address(address)) + percent + zone
    except ValueError:
        raise AddressError(f'"{text}": "{inside}" is not an IPv6 address') from None


def _host(text: str, host: str) -> str:
    if host == "*":
        return host
    if re.fullmatch(r"[0-9.]+", host, re.ASCII):
        return _ipv4(text, host)
    if not _HOST_NAME.fullmatch(host):
        raise AddressError(f'"{text}": "{host}" is not a host name or an IP address')
    return host.lower()


def _ipv4(text: str, host: str) -> str:
    try:
        return str(ipaddress.IPv4Address(host))
    except ValueError:  # getaddrinfo() would take "127.1" and "0177.0.0.1", each in its own surprising way
        raise AddressError(f'"{text}": "{host}" is not an IPv4 address') from None


def _port(text: str, port: str) -> int:
    if not port:
        raise AddressError(f'"{text}" has no port: write "{text}8000"')
    if not _DIGITS.fullmatch(port):
        raise AddressError(f'"{text}": the port "{port}" is not a number')
    if int(port) > 65535:
        raise AddressError(f'"{text}": the port {int(port)} is not in 0 to 65535')
    return int(port)
