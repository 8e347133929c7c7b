"""Who the workers run as: --user, --group and --umask.

The master keeps its privileges, for ports below 1024, signals, the pid file; the workers, where the app and the bytes
of strangers are, give theirs up before the app is imported, and for good.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

from preforkd.workers.records import dataclass
from preforkd.workers.spelling import similar

_CAP_KILL: Final = 1 << 5
_CAP_SETGID: Final = 1 << 6
_CAP_SETUID: Final = 1 << 7
_LARGEST: Final = 2**32 - 2
"""The largest id: the one above says "unchanged" to the kernel."""


class PrivilegeError(Exception):
    """There is no such user or group, or this process may not become it; the message says so in one line.

    Attributes:
        option: `user` or `group`, whichever it is about.
    """

    def __init__(self, message: str, option: str = "user") -> None:
        super().__init__(message)
        self.option = option


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a worker runs as.

    Attributes:
        uid: its user.
        gid: its group.
        groups: all that it is in; looked up by the master, so that no fork depends on a directory service.
        name: of the user, None when the user database has none.
        home: its home folder, `/` when nobody knows.
    """

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    name: str | None = None
    home: str = "/"


def resolve(user: str, group: str) -> Identity | None:
    """Look a user and a group up.

    Args:
        user: name or number; empty: that of this process.
        group: name or number; empty: the user's own.

    Returns:
        None when both are empty or what this process is already.

    Raises:
        PrivilegeError: they do not exist, or this process may not become them.
    """
    if not user and not group:
        return None
    entry = _user(user) if user else _entry(os.geteuid())
    if group:
        gid = find_group(group)
    elif entry.name is None:
        raise PrivilegeError(f"user {user} is not in the user database, so its group is not known: give --group, too")
    else:
        gid = entry.gid
    groups = (gid,) if entry.name is None else tuple(os.getgrouplist(entry.name, gid))
    wanted = replace(entry, gid=gid, groups=groups)
    if (wanted.uid, wanted.gid) == (os.geteuid(), os.getegid()):
        return None
    if problem := _hindrance(wanted):
        raise PrivilegeError(problem, "user" if user else "group")
    return wanted


def find_user(text: str) -> int:
    """Return the id of a user.

    Args:
        text: name or number.

    Raises:
        PrivilegeError: there is no such user.
    """
    return _user(text).uid


def find_group(text: str) -> int:
    """Return the id of a group.

    Args:
        text: name or number.

    Raises:
        PrivilegeError: there is no such group.
    """
    if _is_number(text):
        return _number("group", text)
    try:
        return grp.getgrnam(text).gr_gid
    except (KeyError, ValueError):
        raise PrivilegeError(_unknown("group", text, [one.gr_name for one in grp.getgrall()]), "group") from None


def _user(text: str) -> Identity:
    if _is_number(text):
        return _entry(_number("user", text))
    try:
        found = pwd.getpwnam(text)
    except (KeyError, ValueError):
        raise PrivilegeError(_unknown("user", text, [one.pw_name for one in pwd.getpwall()])) from None
    return Identity(found.pw_uid, found.pw_gid, name=found.pw_name, home=found.pw_dir or "/")


def _entry(uid: int) -> Identity:
    """What the user database says of an id; in a container it often says nothing."""
    try:
        found = pwd.getpwuid(uid)
    except KeyError:
        return Identity(uid, os.getegid())
    return Identity(uid, found.pw_gid, name=found.pw_name, home=found.pw_dir or "/")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _number(what: str, text: str) -> int:
    if int(text) > _LARGEST:
        raise PrivilegeError(f"{what} {text} is not in 0 to {_LARGEST}", what)
    return int(text)


def _unknown(what: str, text: str, known: list[str]) -> str:
    near = similar(text, known, 2, 0.7)
    return f"there is no {what} {text!a}" + (f"; did you mean {' or '.join(near)}?" if near else "")


def _hindrance(wanted: Identity) -> str:
    """What keeps this process from becoming somebody else; empty when nothing does."""
    who = f"user {wanted.name or wanted.uid}, group {wanted.gid}"
    if os.geteuid() != 0:
        return f"only root can have workers of another user ({who}); this is user {os.geteuid()}, group {os.getegid()}"
    if not _may(_CAP_SETUID | _CAP_SETGID | _CAP_KILL):
        # Without KILL the master could not end them.
        return f"root needs the capabilities SETUID, SETGID and KILL to have workers of another user ({who})"
    return ""


def _may(needed: int, status: Path = Path("/proc/self/status")) -> bool:
    """Tell whether this process has these capabilities; where there are none (macOS) root may do everything."""
    with contextlib.suppress(OSError):
        for line in status.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16) & needed == needed
    return True


def set_umask(digits: str) -> None:
    """Set the permissions that new files do not get.

    Args:
        digits: octal; empty: as they are.
    """
    if digits:
        os.umask(int(digits, 8))


def drop(identity: Identity) -> None:
    """Become that user and group for good, in a forked worker that has one thread.

    On Linux the kernel then forgets that the process wanted to be told of its parent's death (PR_SET_PDEATHSIG): that
    has to be asked for again. It also makes the process not dumpable, and that is left so: another process of the same
    user can neither trace the worker nor read from its memory what root had read.

    Args:
        identity: as `resolve` has returned it.

    Raises:
        OSError: the system refuses.
        PrivilegeError: the way back is open, or something of the former privileges is left.
    """
    former = os.geteuid()
    # The groups first: without privileges they could not be changed any more, and root's would stay.
    os.setgroups(identity.groups)
    if sys.platform == "darwin":  # it has no setresuid; from root, setuid sets all three ids
        os.setgid(identity.gid)
        os.setuid(identity.uid)
    else:
        os.setresgid(identity.gid, identity.gid, identity.gid)
        os.setresuid(identity.uid, identity.uid, identity.uid)
    _verify(identity, former)
    if identity.uid != former:
        _set_environment(identity)


def _verify(identity: Identity, former: int) -> None:
    """Try to get back: a system call that said yes is not yet a fact (sandboxes, user namespaces, odd kernels)."""
    if (os.getuid(), os.geteuid(), os.getgid(), os.getegid()) != (identity.uid,) * 2 + (identity.gid,) * 2:
        raise PrivilegeError(f"the worker runs as user {os.geteuid()}, group {os.getegid()} after the change")
    if identity.uid == former:
        return
    with contextlib.suppress(PermissionError):
        os.setuid(former)
        raise PrivilegeError(f"the worker could become user {former} again")
    if not _has_no_capability():
        raise PrivilegeError("the worker has kept capabilities of the former user")


def _has_no_capability(status: Path = Path("/proc/self/status")) -> bool:
    with contextlib.suppress(OSError):
        lines = status.read_text(encoding="utf-8", errors="replace").splitlines()
        return all(
            int(line.split()[1], 16) == 0 for line in lines if line.startswith(("CapEff:", "CapPrm:", "CapAmb:"))
        )
    return True


def _set_environment(identity: Identity) -> None:
    """Give the app the environment of its user; root's home would be a folder that it cannot read."""
    os.environ["HOME"] = identity.home
    for variable in ("USER", "LOGNAME"):
        if identity.name is None:
            os.environ.pop(variable, None)
        else:
            os.environ[variable] = identity.name
