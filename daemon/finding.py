"""Where the admin process of a daemon answers: as told, or as the system says of the processes of a pid file.

Of `preforkctl health`, so it imports little: see `preforkd.daemon.health`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping, Sequence

_LISTENING = "0A"  # TCP_LISTEN, include/net/tcp_states.h
_ACCEPTING = 0x10000  # __SO_ACCEPTCON, include/uapi/linux/net.h
_SOCKET = "socket:["


class NotFoundError(Exception):
    """There is no daemon to ask; the message says why and what would be right, in one line."""


def addresses(admin: Sequence[str], pid_file: str, environ: Mapping[str, str]) -> list[str]:
    """Return where the daemon may be asked, unix sockets first: on them there is control, too.

    Args:
        admin: as the user gives them (--admin); they count before all else.
        pid_file: as the user gives it (--pid); empty: not at all.
        environ: with PREFORKD_ADMIN and PREFORKD_PID, which count in this order. Before them counts the daemon that is
            the first process of this container: its command line may have overruled the environment that both share.

    Raises:
        NotFoundError: nothing of it says where, or there is no such process, or it has no admin process.
    """
    found = list(admin)
    if not found and not pid_file:
        found = _of_container()
    if not found and not pid_file:
        found = [part.strip() for part in environ.get("PREFORKD_ADMIN", "").split(",") if part.strip()]
        pid_file = environ.get("PREFORKD_PID", "").strip()
    if not found and not pid_file:
        raise NotFoundError(
            "which daemon? Give --admin ADDRESS or --pid FILE, or set PREFORKD_ADMIN or PREFORKD_PID, as for preforkd"
        )
    found = found or list(_listening(_admin_of(_pid_in(pid_file), pid_file)))
    return sorted(found, key=lambda one: not one.startswith("unix:"))


def _of_container(first: int = 1) -> list[str]:
    """Return where the daemon answers that is process 1; nothing where another program is."""
    if ": master [" not in _read(f"/proc/{first}/cmdline"):
        return []
    try:
        return list(_listening(_admin_of(first, f"/proc/{first}")))
    except NotFoundError:
        return []  # it has none, or that of another user may not be looked at: then the environment says


def _pid_in(path: str) -> int:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib would be most of what is imported
            text = file.read(64).strip()
    except OSError as exc:
        raise NotFoundError(f"the pid file {path} cannot be read: {exc.strerror}") from exc
    if not text.isdigit():
        raise NotFoundError(f"{path} is no pid file: it holds {text[:20]!r}")
    return int(text)


def _admin_of(master: int, path: str) -> int:
    """Return the admin process of a master."""
    if not os.path.isdir(f"/proc/{master}"):  # noqa: PTH112 - as above
        raise NotFoundError(f"there is no process {master}, of which {path} speaks: the daemon does not run")
    for name in os.listdir("/proc"):  # noqa: PTH208 - as above
        if (
            name.isdigit()
            and _parent(name) == master
            and _read(f"/proc/{name}/cmdline").rstrip("\0").endswith(": admin")
        ):
            return int(name)
    raise NotFoundError(f"process {master}, of which {path} speaks, has no admin process: start preforkd with --admin")


def _parent(pid: str) -> int:
    # proc(5): the name in parentheses may hold anything; the state and the parent follow.
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return int(fields[1]) if len(fields) > 1 else 0


def _read(path: str) -> str:
    try:
        with open(path, errors="replace") as file:  # noqa: PTH123 - as above
            return file.read()
    except OSError:
        return ""  # it has ended, or is not ours to look at


def _listening(pid: int) -> Iterator[str]:
    """Yield the addresses that a process listens on."""
    try:
        inodes = {_inode(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")}  # noqa: PTH208 - as above
    except PermissionError:
        raise NotFoundError(f"process {pid} is not ours to look at: be its user or root, or give --admin") from None
    except OSError:
        raise NotFoundError(f"the admin process {pid} has just ended: try again") from None
    for line in _read(f"/proc/{pid}/net/unix").splitlines()[1:]:
        _, _, _, flags, _, _, inode, *path = line.split(None, 7)
        if inode in inodes and int(flags, 16) & _ACCEPTING and path:
            yield f"unix:{path[0]}"
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in _read(f"/proc/{pid}/net/{table}").splitlines()[1:]:
            fields = line.split()
            if fields[9] in inodes and fields[3] == _LISTENING:
                yield _tcp(fields[1], family)


def _inode(link: str) -> str:
    try:
        target = os.readlink(link)  # noqa: PTH115 - as above
    except OSError:
        return ""
    return target[len(_SOCKET) : -1] if target.startswith(_SOCKET) else ""


def _tcp(text: str, family: int) -> str:
    """Return an address of /proc/net/tcp as text: words in the order of the machine's bytes."""
    import sys

    host, _, port = text.partition(":")
    words = [int(host[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(host), 8)]
    name = socket.inet_ntop(family, b"".join(words))
    return f"[{name}]:{int(port, 16)}" if family == socket.AF_INET6 else f"{name}:{int(port, 16)}"
