"""Kills for want of memory, from fake trees of control groups."""

from __future__ import annotations

from pathlib import Path

import pytest

from preforkd.daemon.oom import FRESH, OomKills

V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "31 23 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
GROUPS = {2: (V2, "0::/app\n"), 1: (V1, "4:cpu:/x\n3:memory:/app\n")}
FILES = {
    2: ("sys/fs/cgroup/app/memory.events", "low 0\nhigh 0\nmax 9\noom {}\noom_kill {}\noom_group_kill 0\n"),
    1: ("sys/fs/cgroup/memory/app/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill {1}\n"),
}


class Group:
    """A control group with its counter."""

    def __init__(self, root: Path, version: int) -> None:
        self.root = root
        self._file, self._text = FILES[version]
        mountinfo, groups = GROUPS[version]
        self.write("proc/self/mountinfo", mountinfo)
        self.write("proc/self/cgroup", groups)
        self.count(0)

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def count(self, kills: int) -> None:
        # `oom` counts failed allocations, which need not have killed anybody.
        self.write(self._file, self._text.format(77 + kills, kills))


@pytest.fixture(params=[1, 2], ids=["v1", "v2"])
def group(request: pytest.FixtureRequest, tmp_path: Path) -> Group:
    return Group(tmp_path, request.param)


def test_a_death_is_the_kernels_doing_when_its_counter_has_grown(group: Group) -> None:
    kills = OomKills(group.root)
    assert not kills.claim(0.0)
    group.count(1)
    assert kills.claim(1.0)
    assert not kills.claim(1.0), "one kill is one death"


def test_kills_of_before_the_start_count_for_nobody(group: Group) -> None:
    group.count(5)
    assert not OomKills(group.root).claim(0.0)


def test_several_kills_at_once_are_several_deaths(group: Group) -> None:
    kills = OomKills(group.root)
    group.count(2)
    assert [kills.claim(1.0) for _ in range(3)] == [True, True, False]


def test_a_kill_that_was_seen_before_the_death_belongs_to_it(group: Group) -> None:
    kills = OomKills(group.root)
    group.count(1)
    kills.look(1.0)
    kills.look(1.5)
    assert kills.claim(1.0 + FRESH)


def test_an_old_kill_was_of_another_process(group: Group) -> None:
    kills = OomKills(group.root)
    group.count(1)
    kills.look(1.0)
    assert not kills.claim(1.1 + FRESH)


def test_a_counter_that_is_gone_or_starts_again_is_no_kill(group: Group) -> None:
    group.count(5)
    kills = OomKills(group.root)
    group.count(1)
    assert not kills.claim(1.0)
    group.count(2)
    assert kills.claim(2.0)


def test_the_groups_own_counter_goes_before_the_one_that_includes_groups_below(tmp_path: Path) -> None:
    group = Group(tmp_path, 2)
    group.write("sys/fs/cgroup/app/memory.events.local", "oom_kill 0\n")
    kills = OomKills(tmp_path)
    group.count(1)
    assert not kills.claim(1.0)
    group.write("sys/fs/cgroup/app/memory.events.local", "oom_kill 1\n")
    assert kills.claim(2.0)


@pytest.mark.parametrize("text", ["", "low 0\n", "oom_kill\n", "oom_kill x\n", "xoom_kill 3\n"])
def test_without_a_counter_no_death_is_put_down_to_the_kernel(group: Group, text: str) -> None:
    group.write(group._file, text)
    kills = OomKills(group.root)
    group.count(1)
    assert not kills.claim(1.0)


def test_a_system_without_proc_has_no_counter(tmp_path: Path) -> None:
    assert not OomKills(tmp_path).claim(0.0)
