"""The listening sockets: bound once by the master, inherited by every worker, open while they are configured."""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from preforkd.daemon import inherited
from preforkd.daemon.address import Address, FdAddress, SystemdAddress, TcpAddress, UnixAddress
from preforkd.daemon.occupant import occupant
from preforkd.daemon.privileges import Identity, PrivilegeError, find_group, find_user
from preforkd.daemon.systemd import NO_ACTIVATION, Activation
from preforkd.workers.records import dataclass


class BindError(Exception):
    """Addresses that cannot be bound.

    Attributes:
        errors: one line each: which address, why, and what would be right.
    """

    def __init__(self, errors: Sequence[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = list(errors)


@dataclass(frozen=True, slots=True, eq=False)
class Listener:
    """A bound socket that does not listen yet.

    Attributes:
        address: as configured; a name that resolves to several addresses makes a listener for each.
        socket: non-blocking, not inherited over `exec`.
        inode: device and inode of a unix socket's file, to know it again; None for other sockets.
    """

    address: Address
    socket: socket.socket
    inode: tuple[int, int] | None = None

    @property
    def url(self) -> str:
        """Where clients find it: with the real port when the system has chosen one."""
        return self.url_of(self.address)

    def url_of(self, address: Address) -> str:
        """As `url`, by what the same address is configured to speak now."""
        if self.socket.family == socket.AF_UNIX:
            return UnixAddress(_unix_name(self.socket), tls=address.tls).url
        host, port = self.socket.getsockname()[:2]
        return TcpAddress(host, port, tls=address.tls).url

    @property
    def is_lent(self) -> bool:
        """Whether somebody else has bound the socket, and goes on with it when this daemon is gone."""
        return not isinstance(self.address, TcpAddress | UnixAddress)

    def close(self) -> None:
        """Close the socket for good, and remove its file if that is still ours.

        For the master alone: a worker that stops accepting closes `socket`.
        """
        if self.inode is not None and isinstance(self.address, UnixAddress):
            path = Path(self.address.path)
            # The file first: only while the socket is open can its inode not be that of a successor's file.
            if _inode(path) == self.inode:
                path.unlink(missing_ok=True)
        self.socket.close()


@dataclass(frozen=True, slots=True)
class Plan:
    """What a reload does to the listeners."""

    keep: tuple[Listener, ...]
    open: tuple[Address, ...]
    close: tuple[Listener, ...]


def plan(old: Iterable[Listener], new: Iterable[Address]) -> Plan:
    """Compare what is bound with what is configured now; a listener that stays is never touched.

    Args:
        old: the listeners.
        new: the addresses, each once.
    """
    old, new = tuple(old), tuple(new)
    bound = {listener.address for listener in old}
    return Plan(
        keep=tuple(listener for listener in old if listener.address in new),
        open=tuple(address for address in new if address not in bound),
        close=tuple(listener for listener in old if listener.address not in new),
    )


def bind_all(
    addresses: Iterable[Address], activation: Activation = NO_ACTIVATION, owner: Identity | None = None
) -> list[Listener]:
    """Bind every address, or none.

    Args:
        addresses: what to bind.
        activation: the sockets that systemd has passed.
        owner: who the files of unix sockets belong to, unless their addresses say otherwise.

    Returns:
        The listeners in the order of the addresses; a name that resolves to several addresses gives several.

    Raises:
        BindError: some could not be bound; it says all of them.
    """
    listeners: list[Listener] = []
    errors: list[str] = []
    for address in addresses:
        try:
            listeners += _bind(address, listeners, activation, owner)
        except _RefusedError as exc:
            errors.append(f"cannot bind {address}: {exc}")
    if errors:
        _close_all(listeners)
        raise BindError(errors)
    return listeners


class _RefusedError(Exception):
    """One address cannot be bound; the text says why."""


def _bind(
    address: Address, others: Sequence[Listener], activation: Activation, owner: Identity | None
) -> list[Listener]:
    if any(other.address == address for other in others):
        raise _RefusedError("it is given twice")
    if isinstance(address, TcpAddress):
        return _bind_tcp(address, others)
    if isinstance(address, UnixAddress):
        return [_bind_abstract(address) if address.abstract else _bind_unix(address, owner)]
    return [Listener(address, sock) for sock in _inherited(address, activation)]


def _inherited(address: FdAddress | SystemdAddress, activation: Activation) -> list[socket.socket]:
    try:
        if isinstance(address, FdAddress):
            return [inherited.by_number(address.fd, activation)]
        return inherited.by_name(address.name, activation)
    except inherited.UnfitError as exc:
        raise _RefusedError(str(exc)) from exc


def _bind_tcp(address: TcpAddress, others: Sequence[Listener]) -> list[Listener]:
    listeners: list[Listener] = []
    absent: OSError | None = None
    port = address.port
    for family, sockaddr in _resolve(address):
        try:
            sock = _tcp_socket(family, (sockaddr[0], port, *sockaddr[2:]))
        except OSError as exc:
            if exc.errno in _ABSENT:
                absent = exc  # /etc/hosts says that localhost is ::1 too, also where there is no IPv6
                continue
            _close_all(listeners)
            if exc.errno == errno.EADDRINUSE and (other := _overlapping(family, sockaddr, others)):
                raise _RefusedError(f"{other.address} has the same port of the same addresses") from exc
            raise _RefusedError(_tcp_reason(address, exc)) from exc
        listeners.append(Listener(address, sock))
        port = sock.getsockname()[1]  # port 0: the same one for each
    if absent and not listeners:
        raise _RefusedError(_tcp_reason(address, absent)) from absent
    return listeners


_ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def _resolve(address: TcpAddress) -> list[tuple[socket.AddressFamily, tuple[Any, ...]]]:
    """Every address of the host, once, IPv4 first."""
    if address.host == "*":
        # Two sockets, not one of IPv6 that takes both: there the clients of IPv4 would be "::ffff:192.0.2.1".
        return [(socket.AF_INET, ("0.0.0.0", address.port)), (socket.AF_INET6, ("::", address.port, 0, 0))]  # noqa: S104 - "*" asks for it
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as exc:
        detail = exc.strerror if isinstance(exc, OSError) else "not a host name"
        raise _RefusedError(f'the name "{address.host}" does not resolve ({detail})') from exc
    unique = dict.fromkeys((family, sockaddr) for family, _kind, _protocol, _name, sockaddr in found)
    return sorted(unique, key=lambda one: one[0] != socket.AF_INET)


def _overlapping(family: int, sockaddr: tuple[Any, ...], others: Sequence[Listener]) -> Listener | None:
    """Find a listener of our own that is in the way: 0.0.0.0:80 and 127.0.0.1:80 are not two addresses."""
    for other in others:
        host, port = other.socket.getsockname()[:2] if other.socket.family == family else ("", -1)
        if port == sockaddr[1] and (host == sockaddr[0] or {host, sockaddr[0]} & {"0.0.0.0", "::"}):  # noqa: S104 - compared
            return other
    return None


def _tcp_socket(family: socket.AddressFamily, sockaddr: tuple[Any, ...]) -> socket.socket:
    """Bind for ourselves alone.

    SO_REUSEADDR lets two daemons bind an address for as long as neither listens, and the one whose app boots last would
    fail only then. So it is used where it is needed, for connections of an earlier run that are in TIME_WAIT, and taken
    back; workers set it when they listen.
    """
    try:
        return _bound(family, sockaddr, reuse=False)
    except OSError as exc:
        if exc.errno != errno.EADDRINUSE:
            raise
    sock = _bound(family, sockaddr, reuse=True)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    return sock


def _bound(family: socket.AddressFamily, sockaddr: tuple[Any, ...], *, reuse: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
        if family == socket.AF_INET6:
            # "[::]" means IPv6: whether it takes IPv4 too would otherwise be up to a sysctl.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(sockaddr)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _tcp_reason(address: TcpAddress, exc: OSError) -> str:
    """Why a TCP address cannot be bound, and what would be right."""
    if exc.errno == errno.EADDRINUSE:
        owner = occupant(address.port)
        return f"the port is in use{f' by {owner}' if owner else ''}; stop that, or --bind another port"
    if exc.errno == errno.EACCES:
        return (
            "not permitted: a port below 1024 needs root or CAP_NET_BIND_SERVICE "
            "(AmbientCapabilities= of systemd); bind one from 1024 up"
        )
    if exc.errno == errno.EADDRNOTAVAIL:
        return f"this machine has no address {address.host} (:{address.port} binds all that it has)"
    if exc.errno == errno.EAFNOSUPPORT:
        return "this machine has no IPv6"
    return exc.strerror or str(exc)


def _bind_abstract(address: UnixAddress) -> Listener:
    if sys.platform != "linux":
        raise _RefusedError("only Linux has unix sockets without a file; write unix:PATH")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind("\0" + address.path.removeprefix("@"))
    except OSError as exc:
        sock.close()
        in_use = exc.errno == errno.EADDRINUSE
        raise _RefusedError("the name is in use" if in_use else exc.strerror or str(exc)) from exc
    sock.setblocking(False)
    return Listener(address, sock)


def _bind_unix(address: UnixAddress, owner: Identity | None) -> Listener:
    """Bind to the path itself, not beside it to be renamed: the kernel keeps the name, and tells it to everybody.

    Nobody can connect before a worker listens, so the file gets its owner and mode in time, and the moment between the
    end of a stale one and ours refuses nobody who would not have been refused.
    """
    path = Path(address.path)
    _check_free(path)
    inode = None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        sock.bind(str(path))
        inode = _inode(path)
        _permit(path, address, owner)
        sock.setblocking(False)
    except (OSError, _RefusedError) as exc:
        if inode is not None and _inode(path) == inode:
            path.unlink(missing_ok=True)
        sock.close()
        raise exc if isinstance(exc, _RefusedError) else _RefusedError(_unix_reason(path, exc)) from exc
    return Listener(address, sock, inode)


def _permit(path: Path, address: UnixAddress, owner: Identity | None) -> None:
    """Give the file of a unix socket the owner and the mode that its address asks for."""
    try:
        uid = find_user(address.user) if address.user else -1 if owner is None else owner.uid
        gid = find_group(address.group) if address.group else -1 if owner is None else owner.gid
    except PrivilegeError as exc:
        raise _RefusedError(str(exc)) from exc
    if (uid, gid) != (-1, -1):
        try:
            os.chown(path, uid, gid)
        except PermissionError:
            raise _RefusedError("not permitted to give the file to that user and group: it takes root") from None
    if address.mode is not None:
        path.chmod(address.mode)


def permit_again(listener: Listener, addresses: Iterable[Address], owner: Identity | None) -> None:
    """Give the file of a unix socket that stays bound the owner and the mode that a new configuration asks for.

    Args:
        listener: any listener.
        addresses: as configured now.
        owner: as for `bind_all`.

    Raises:
        BindError: that is not possible.
    """
    address = next((one for one in addresses if one == listener.address), None)
    if isinstance(address, UnixAddress) and listener.inode is not None:
        path = Path(address.path)
        try:
            if _inode(path) == listener.inode:
                _permit(path, address, owner)
        except (OSError, _RefusedError) as exc:
            raise BindError([f"{address}: {exc}"]) from exc


def _check_free(path: Path) -> None:
    """Refuse a path that something lives at; what is left of a dead server may be replaced."""
    if not path.parent.is_dir():
        raise _RefusedError(f"the folder {path.parent} does not exist")
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as exc:
        raise _RefusedError(_unix_reason(path, exc)) from exc
    if not stat.S_ISSOCK(mode):
        raise _RefusedError(f"{path} exists and is not a socket; remove it, or choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        answer = probe.connect_ex(str(path))
    if answer in (0, errno.EAGAIN):  # EAGAIN: its queue is full, so somebody listens
        raise _RefusedError("a server listens there; stop it, or choose another path")
    if answer not in (errno.ECONNREFUSED, errno.ENOENT):
        raise _RefusedError(f"{path} exists, and cannot be asked who has it: {os.strerror(answer)}")


def _unix_reason(path: Path, exc: OSError) -> str:
    if exc.errno in (errno.EACCES, errno.EPERM):
        return f"no permission to make a file in {path.parent}"
    if exc.errno == errno.EADDRINUSE:
        return "somebody else has bound it in this moment"
    return exc.strerror or str(exc)


def _unix_name(sock: socket.socket) -> str:
    name = sock.getsockname()
    return os.fsdecode(name).replace("\0", "@", 1) if name else ""


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _close_all(listeners: Iterable[Listener]) -> None:
    for listener in listeners:
        listener.close()
