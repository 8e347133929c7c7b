"""Users and groups are found or refused with a reason, and what a worker gives up it cannot get back."""

from __future__ import annotations

import grp
import json
import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from preforkd.daemon import privileges
from preforkd.daemon.privileges import Identity, PrivilegeError, find_group, find_user, resolve

NOBODY = pwd.getpwnam("nobody")
UNKNOWN = 3_141_592  # a number that no user database has
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


def as_user(monkeypatch: pytest.MonkeyPatch, uid: int, gid: int) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setattr(os, "getegid", lambda: gid)


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of root that may change users."""
    as_user(monkeypatch, 0, 0)
    monkeypatch.setattr(privileges, "_may", lambda needed: True)


@pytest.mark.usefixtures("root")
def test_a_user_by_name_brings_its_group_and_home() -> None:
    groups = tuple(os.getgrouplist("nobody", NOBODY.pw_gid))
    expected = Identity(NOBODY.pw_uid, NOBODY.pw_gid, groups, "nobody", NOBODY.pw_dir)
    assert resolve("nobody", "") == expected
    assert resolve(str(NOBODY.pw_uid), "") == expected


@pytest.mark.usefixtures("root")
def test_a_group_by_name_or_number_counts_before_the_users_own() -> None:
    group = grp.getgrall()[1]
    for text in (group.gr_name, str(group.gr_gid)):
        found = resolve("nobody", text)
        assert found is not None
        assert (found.uid, found.gid, found.name) == (NOBODY.pw_uid, group.gr_gid, "nobody")
        assert group.gr_gid in found.groups


@pytest.mark.usefixtures("root")
def test_a_group_alone_leaves_the_user() -> None:
    found = resolve("", "4711")
    assert found is not None
    assert (found.uid, found.gid) == (0, 4711)


@pytest.mark.usefixtures("root")
def test_a_number_that_the_user_database_lacks_needs_a_group() -> None:
    with pytest.raises(PrivilegeError, match=rf"user {UNKNOWN} is not in the user database.*give --group"):
        resolve(str(UNKNOWN), "")
    assert resolve(str(UNKNOWN), "4711") == Identity(UNKNOWN, 4711, (4711,), None, "/")


def test_nothing_asked_for_is_nothing_to_do() -> None:
    assert resolve("", "") is None


def test_what_the_process_is_already_is_nothing_to_do_for_anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    as_user(monkeypatch, NOBODY.pw_uid, NOBODY.pw_gid)
    assert resolve("nobody", "") is None
    assert resolve("", str(NOBODY.pw_gid)) is None


def test_only_root_can_become_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    as_user(monkeypatch, UNKNOWN, UNKNOWN)
    with pytest.raises(PrivilegeError, match=rf"only root .*user nobody.*this is user {UNKNOWN}, group {UNKNOWN}"):
        resolve("nobody", "")
    with pytest.raises(PrivilegeError, match="only root"):
        resolve("", "4711")


def test_root_without_the_capabilities_is_told_so_before_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    as_user(monkeypatch, 0, 0)
    monkeypatch.setattr(privileges, "_may", lambda needed: False)
    with pytest.raises(PrivilegeError, match="needs the capabilities SETUID, SETGID and KILL"):
        resolve("nobody", "")


@pytest.mark.parametrize(
    ("effective", "may"),
    [("000001fffeffffff", True), ("00000000000000c0", True), ("0000000000000080", False), ("0000000000000000", False)],
)
def test_capabilities_are_read_from_the_kernel(tmp_path: Path, effective: str, may: bool) -> None:
    status = tmp_path / "status"
    status.write_text(f"Name:\tpython3\nCapPrm:\tffffffffffffffff\nCapEff:\t{effective}\nCapBnd:\tffffffffffffffff\n")
    assert privileges._may(privileges._CAP_SETUID | privileges._CAP_SETGID, status) is may


def test_a_system_without_capabilities_has_an_almighty_root(tmp_path: Path) -> None:
    assert privileges._may(privileges._CAP_SETUID, tmp_path / "status")


def test_who_does_not_exist_is_named_with_near_matches() -> None:
    with pytest.raises(PrivilegeError, match="there is no user 'nobdy'; did you mean nobody"):
        resolve("nobdy", "")
    with pytest.raises(PrivilegeError, match=r"there is no group 'xyzzy'\Z"):
        resolve("", "xyzzy")
    with pytest.raises(PrivilegeError, match="there is no group"):
        find_group("a\0b")


@pytest.mark.parametrize("find", [find_user, find_group])
@pytest.mark.parametrize("number", [2**32 - 1, 2**32, 10**30])
def test_a_number_that_the_kernel_would_take_for_another_one_is_refused(find: Any, number: int) -> None:
    with pytest.raises(PrivilegeError, match="is not in 0 to 4294967294"):
        find(str(number))


def test_ids_are_found_by_name_and_number() -> None:
    assert find_user("nobody") == find_user(str(NOBODY.pw_uid)) == NOBODY.pw_uid
    group = grp.getgrgid(NOBODY.pw_gid)
    assert find_group(group.gr_name) == find_group(str(group.gr_gid)) == group.gr_gid


def test_a_umask_is_set_or_left_as_it_is() -> None:
    before = os.umask(0o022)
    try:
        privileges.set_umask("")
        assert os.umask(0o022) == 0o022
        privileges.set_umask("027")
        assert os.umask(0o022) == 0o027
    finally:
        os.umask(before)


DROP = """
import json, os, sys
from preforkd.daemon.privileges import Identity, drop
drop(Identity(*json.loads(sys.argv[1])))
regained = []
for way in (lambda: os.setuid(0), lambda: os.setresuid(0, 0, 0), lambda: os.setgid(0), lambda: os.setgroups([0])):
    try:
        way()
        regained.append(True)
    except PermissionError:
        regained.append(False)
with open("/proc/self/smaps_rollup") as file:
    own_memory = bool(file.read())
print(json.dumps({
    "uids": os.getresuid(), "gids": os.getresgid(), "groups": sorted(os.getgroups()), "regained": regained,
    "environment": {name: os.environ.get(name) for name in ("HOME", "USER", "LOGNAME")},
    "caps": [line.split()[1] for line in open("/proc/self/status") if line.startswith(("CapEff", "CapPrm"))],
    "own_memory": own_memory,
}))
"""


def dropped(*identity: object, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [*prefix, sys.executable, "-c", DROP, json.dumps(identity)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@needs_root
def test_a_worker_becomes_its_user_with_every_id_and_no_group_of_roots() -> None:
    found = json.loads(dropped(NOBODY.pw_uid, NOBODY.pw_gid, (NOBODY.pw_gid, 4711), "nobody", NOBODY.pw_dir).stdout)
    assert found["uids"] == [NOBODY.pw_uid] * 3
    assert found["gids"] == [NOBODY.pw_gid] * 3
    assert found["groups"] == sorted((NOBODY.pw_gid, 4711))
    assert found["regained"] == [False] * 4
    assert {int(one, 16) for one in found["caps"]} == {0}
    assert found["environment"] == {"HOME": NOBODY.pw_dir, "USER": "nobody", "LOGNAME": "nobody"}
    assert found["own_memory"], "a process that is not dumpable can still read its own numbers"


@needs_root
def test_a_user_that_no_database_knows_has_its_group_alone_and_no_name() -> None:
    found = json.loads(dropped(UNKNOWN, 4711, (4711,), None, "/").stdout)
    assert (found["uids"], found["gids"], found["groups"]) == ([UNKNOWN] * 3, [4711] * 3, [4711])
    assert found["environment"] == {"HOME": "/", "USER": None, "LOGNAME": None}


@needs_root
def test_a_way_back_that_stays_open_is_noticed() -> None:
    # Under these secure bits the kernel leaves root's capabilities to whoever root becomes.
    found = dropped(UNKNOWN, 4711, (4711,), None, "/", prefix=("setpriv", "--securebits", "+no_setuid_fixup"))
    assert found.returncode != 0
    assert "PrivilegeError" in found.stderr
    assert "could become user 0 again" in found.stderr
