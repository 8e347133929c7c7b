"""Files of prometheus-client's multiprocess mode, by row."""

from __future__ import annotations

from pathlib import Path

import pytest

from preforkd.workers import prometheus

ALL = ("counter", "histogram", "gauge_all", "gauge_sum", "gauge_livesum", "gauge_liveall", "gauge_mostrecent")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(prometheus.VARIABLE, str(tmp_path))
    monkeypatch.setattr(prometheus, "_identity", "mold77")
    for identity in ("w0", "w1", "w2", "mold77"):
        for kind in ALL:
            (tmp_path / f"{kind}_{identity}.db").touch()
    return tmp_path


def kinds(folder: Path, identity: str) -> list[str]:
    return [kind for kind in ALL if (folder / f"{kind}_{identity}.db").exists()]


def test_a_worker_goes_on_with_the_counters_of_its_row_and_not_with_its_gauges(folder: Path) -> None:
    prometheus.begin(1, dead=[2])
    assert kinds(folder, "w1") == ["counter", "histogram", "gauge_mostrecent"]
    assert kinds(folder, "w2") == ["counter", "histogram", "gauge_mostrecent"], "it is dead"
    assert kinds(folder, "w0") == list(ALL), "it lives"
    assert kinds(folder, "mold77") == []


def test_a_worker_that_leaves_takes_its_gauges_with_it(folder: Path) -> None:
    prometheus.begin(0, dead=[])
    (folder / "gauge_livesum_w0.db").touch()
    prometheus.end()
    assert kinds(folder, "w0") == ["counter", "histogram", "gauge_mostrecent"]


def test_nothing_is_done_without_the_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(prometheus.VARIABLE, raising=False)
    prometheus.prepare()
    prometheus.begin(0, dead=[1])
    prometheus.end()
