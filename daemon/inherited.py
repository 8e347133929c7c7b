"""Sockets that were bound before this process began: by systemd, or by whoever has started it."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Sequence

from preforkd.daemon.address import Address, FdAddress, SystemdAddress
from preforkd.daemon.systemd import Activation, ActivationError


class UnfitError(Exception):
    """What was inherited is not a socket to listen on; the text says why."""


def by_name(name: str, activation: Activation) -> list[socket.socket]:
    """Return the sockets that systemd has passed by that name, all of them for an empty one.

    Raises:
        UnfitError: there is none, or one of them cannot be listened on.
    """
    sockets: list[socket.socket] = []
    try:
        for fd in activation.named(name):
            sockets.append(_copied(fd))  # noqa: PERF401 - those that were made have to be closed if one is unfit
    except (ActivationError, UnfitError) as exc:
        for sock in sockets:
            sock.close()
        raise UnfitError(str(exc)) from exc
    return sockets


def by_number(fd: int, activation: Activation) -> socket.socket:
    """Return the socket that was inherited as that descriptor.

    Raises:
        UnfitError: there is none, or it cannot be listened on.
    """
    if fd in activation.descriptors():
        return _copied(fd)
    try:
        # What has come through exec is inheritable; the descriptors that this process has opened itself are not.
        inherited = os.get_inheritable(fd)
    except OSError:
        inherited = False
    if not inherited:
        raise UnfitError("no such file descriptor was inherited")
    return _adopted(fd)


def unused(activation: Activation, addresses: Sequence[Address]) -> list[str]:
    """Return the names of the sockets that systemd has passed and that none of these addresses takes."""
    fds = {one.fd for one in addresses if isinstance(one, FdAddress)}
    for address in addresses:
        if isinstance(address, SystemdAddress):
            with contextlib.suppress(ActivationError):
                fds.update(activation.named(address.name))
    return [name for name, fd in activation.sockets if fd not in fds]


def _copied(fd: int) -> socket.socket:
    """Take a copy of a socket of systemd's: an address that a reload takes away may come back with the next one."""
    try:
        copy = os.dup(fd)
    except OSError:
        raise UnfitError("no such file descriptor was inherited") from None
    try:
        return _adopted(copy)
    except UnfitError:
        os.close(copy)
        raise


def _adopted(fd: int) -> socket.socket:
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        raise UnfitError("it is not a socket")
    sock = socket.socket(fileno=fd)
    if problem := _unfit(sock):
        sock.detach()  # it is not ours to close
        raise UnfitError(problem)
    sock.set_inheritable(False)
    sock.setblocking(False)
    return sock


def _unfit(sock: socket.socket) -> str:
    """What keeps an inherited socket from being listened on; empty when nothing does."""
    if sock.type != socket.SOCK_STREAM or sock.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        return f"it is a socket of another kind ({_name(sock.family)}, {_name(sock.type)}), not a stream socket"
    try:
        sock.getpeername()
    except OSError:
        bound = sock.getsockname()
    else:
        return "it is a connection, not a socket to listen on"
    unbound = not bound if sock.family == socket.AF_UNIX else bound[1] == 0
    return "it is not bound to an address" if unbound else ""


def _name(constant: object) -> str:
    return getattr(constant, "name", str(constant))
