"""The declarations of the options, and what a worker is told of them."""

from __future__ import annotations

import tomllib
from dataclasses import fields

import pytest

from preforkd.daemon.config import ConfigError
from preforkd.daemon.options import DECLARATIONS, Options
from preforkd.workers.http.access_log_format import DEFAULT_FORMAT
from preforkd.workers.settings import WorkerSettings
from tests.daemon.sources import configure


def test_every_option_has_a_help_a_default_that_reads_back_and_no_name_twice() -> None:
    flags = [flag for one in DECLARATIONS for flag in (one.flag, one.short) if flag]
    assert len(flags) == len(set(flags))
    for one in DECLARATIONS:
        assert one.help.endswith((".", "(414).", "(431)."))
        written = one.kind.write(one.default)
        assert one.kind.read(tomllib.loads(f"x = {written}")["x"]) == one.default


def test_a_worker_is_told_every_option_of_its_settings() -> None:
    options = configure({"keep_alive": "5"}).options
    settings = options.worker_settings()
    assert settings.keep_alive == 5
    assert {one.name for one in fields(WorkerSettings)} <= {one.name for one in fields(Options)} | {"counting"}


def test_workers_count_by_duration_when_somebody_reads_it() -> None:
    assert not configure().options.worker_settings().counting
    assert configure({"admin": ["127.0.0.1:9000"]}).options.worker_settings().counting
    assert configure({"statsd": "127.0.0.1:8125,unix:/run/statsd.sock"}).options.worker_settings().counting


def test_metrics_are_sent_to_a_port_or_a_path_only() -> None:
    with pytest.raises(ConfigError, match=r'"fd:3" cannot be sent to: write HOST:PORT or unix:PATH'):
        configure({"statsd": "fd:3"})


def test_no_address_is_none_for_those_who_may_have_none() -> None:
    assert configure({"admin": []}).options.admin == ()


def test_the_access_log_is_by_default_what_a_handler_without_the_daemon_writes() -> None:
    assert configure().options.access_log_format == DEFAULT_FORMAT


def test_the_admin_process_has_addresses_of_its_own() -> None:
    given = {"bind": ["127.0.0.1:8000", ":80"], "admin": ["127.0.0.1:8000"]}
    with pytest.raises(ConfigError, match=r"--admin .*: 127.0.0.1:8000 is where the app is served"):
        configure(given)
