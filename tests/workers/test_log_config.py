"""Files of --log-config: read, carried out, and what of them is the server's."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from preforkd.workers import log, log_config
from preforkd.workers.blame import AppError


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    before = log.LOGGER.handlers[:], log.LOGGER.level, log.LOGGER.propagate
    yield
    log.LOGGER.handlers[:], log.LOGGER.propagate = before[0], before[2]
    log.LOGGER.setLevel(before[1])
    for name in (log_config.SERVER, log_config.ACCESS):
        logging.root.manager.loggerDict.pop(name, None)


def test_toml_and_json_are_read_and_disable_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[loggers.shop]\nlevel = 'INFO'")
    (tmp_path / "a.json").write_text('{"version": 1, "disable_existing_loggers": true}')
    assert log_config.read(str(tmp_path / "a.toml")) == {
        "version": 1,
        "disable_existing_loggers": False,
        "loggers": {"shop": {"level": "INFO"}},
    }
    assert log_config.read(str(tmp_path / "a.json"))["disable_existing_loggers"] is True


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.toml", None, "cannot be read: No such file"),
        ("a.toml", b"\xff", "is not UTF-8"),
        ("a.json", b"{", "is not JSON: "),
        ("a.yaml", b"", ".yaml is not read"),
        ("a.json", b"3", "holds no table"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, name: str, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=said):
        log_config.read(str(tmp_path / name))


def test_the_servers_logger_takes_handlers_and_level_and_keeps_what_is_not_named(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("[loggers.preforkd]\nlevel = 'ERROR'\n")
    before = log.LOGGER.handlers[:]
    log_config.apply(str(file), "info")
    assert log.LOGGER.handlers == before
    assert log.LOGGER.level == logging.ERROR
    assert log_config.access_logger() is None
    logging.root.manager.loggerDict.pop("preforkd")
    file.write_text(
        "handlers.none.class = 'logging.NullHandler'\n"
        "loggers.preforkd = {handlers = ['none'], propagate = false}\n"
        "loggers.'preforkd.access' = {handlers = ['none']}\n"
    )
    log_config.apply(str(file), "warning")
    assert [type(one) for one in log.LOGGER.handlers] == [logging.NullHandler]
    assert log.LOGGER.level == logging.WARNING
    access = log_config.access_logger()
    assert access is not None
    logging.getLogger(log_config.ACCESS).disabled = True  # as an app's own configuration does
    assert access.isEnabledFor(logging.INFO)


def test_the_root_logger_gets_its_lines_only_if_the_file_says_so(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    for propagate in ("", "\npropagate = false", "\npropagate = true"):
        file.write_text(
            f"[handlers.none]\nclass = 'logging.NullHandler'\n[loggers.preforkd]\nhandlers = ['none']{propagate}\n"
        )
        log_config.apply(str(file), "info")
        assert log.LOGGER.propagate is propagate.endswith("true")


def test_what_cannot_be_carried_out_is_blamed_on_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("handlers.x.class = 'nowhere.Handler'")
    with pytest.raises(AppError, match="--log-config: Unable to configure handler 'x'"):
        log_config.apply(str(file), "info")


def test_lines_of_the_access_log_are_records(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "some.access")
    way = log_config.LoggerWay(logging.getLogger("some.access"))
    assert way.write(b"one\ntwo %s\n") == 11
    assert [record.getMessage() for record in caplog.records] == ["one", "two %s"]
