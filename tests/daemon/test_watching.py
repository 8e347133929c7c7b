"""Which files are watched, and the watching process as its master sees it."""

from __future__ import annotations

import selectors
from pathlib import Path

import pytest

from preforkd.daemon import watching
from preforkd.daemon.watching import Watch, Watcher
from tests.daemon.sources import configure


def watch(**changes: object) -> Watch:
    values = {
        "folders": ("/srv/shop", "/srv/lib"),
        "includes": ("*.py", "templates/*.html"),
        "excludes": ("test_*", "build/*"),
        "files": frozenset({"/etc/x.toml"}),
    }
    return Watch(**(values | changes))  # type: ignore[arg-type]  # the values are of these types


@pytest.mark.parametrize(
    "path", ["/srv/shop/a.py", "/srv/lib/deep/b.py", "/srv/shop/templates/x.html", "/etc/x.toml", "/srv/shop/build.py"]
)
def test_files_that_count(path: str) -> None:
    assert watch().wants(path)


@pytest.mark.parametrize(
    "path",
    [
        "/srv/shop/a.pyc", "/srv/shop/__pycache__/a.py", "/srv/shop/.git/a.py", "/srv/shop/node_modules/x/a.py",
        "/srv/shop/test_a.py", "/srv/shop/build/a.py", "/srv/other/a.py", "/srv/shop/x.html", "/etc/y.toml",
    ],
)  # fmt: skip
def test_files_that_do_not(path: str) -> None:
    assert not watch().wants(path)


def test_a_hidden_folder_above_what_is_watched_does_not_matter() -> None:
    assert watch(folders=("/home/me/.cache/shop",)).wants("/home/me/.cache/shop/a.py")


def test_the_folders_are_those_of_the_app_unless_others_are_named() -> None:
    def folders(**cli: object) -> tuple[str, ...]:
        return configure({"reload": True, **cli}).options.reload_dir

    assert folders(app="shop:app") == ("/srv",)
    assert folders(app="sub/shop.py:app") == ("/srv",), "one holds the other"
    assert folders(app="/elsewhere/shop.py") == ("/srv", "/elsewhere")
    assert folders(app="shop:app", reload_dir=("a", "/b", "a/c", "./a")) == ("/srv/a", "/b")


def test_development_is_one_worker_and_no_grace_unless_they_are_asked_for() -> None:
    config = configure({"reload": True})
    assert (config.options.workers, config.options.idle_grace) == (1, 0.0)
    assert config.why("workers") == "default, auto: for --reload"
    config = configure({"reload": True, "workers": "3", "idle_grace": "1"})
    assert (config.options.workers, config.options.idle_grace) == (3, 1.0)
    assert configure().options.idle_grace == 2.0


def test_nothing_is_watched_unless_it_is_wanted() -> None:
    assert Watch.of(configure().options, None) is None
    watch = Watch.of(configure({"reload": True}).options, "/srv/preforkd.toml")
    assert watch is not None
    assert watch.files == {"/srv/preforkd.toml"}
    with selectors.DefaultSelector() as selector:
        watcher = Watcher(selector, list)
        watcher.follow(None)
        assert (watcher.descriptors(), watcher.changed(), watcher.reaped(1)) == ([], None, False)
        watcher.end()


def test_a_process_that_cannot_be_forked_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(watching, "spawn", refuse)
    with selectors.DefaultSelector() as selector, caplog.at_level("ERROR", "preforkd"):
        Watcher(selector, list).follow(watch())
    assert "could not be forked: Resource temporarily unavailable" in caplog.text


@pytest.mark.alone  # it forks
def test_a_saved_file_is_told_with_its_name(tmp_path: Path) -> None:
    pytest.importorskip("watchfiles")
    with selectors.DefaultSelector() as selector:
        watcher = Watcher(selector, list)
        watcher.follow(watch(folders=(str(tmp_path),), files=frozenset()))
        try:
            for number in range(100):
                (tmp_path / "a.py").write_text(str(number))
                if selector.select(0.3):  # it may not have begun to watch before
                    break
            assert watcher.changed() == str(tmp_path / "a.py")
        finally:
            watcher.end()
        assert watcher.descriptors() == []
