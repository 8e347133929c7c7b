"""Configuration from sources that stand in a test."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from preforkd.daemon.config import Config, ConfigError, load
from preforkd.daemon.host import Host

HOST = Host(cpus=4, quota=None, open_files=1024)


def configure(
    cli: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    toml: str | None = None,
    *,
    host: Host = HOST,
    require_app: bool = True,
    folder: str = "/srv",
) -> Config:
    """Load from sources that stand in the test; `toml` is /srv/preforkd.toml."""

    def read(path: str) -> bytes:
        if toml is None or path != "/srv/preforkd.toml":
            raise FileNotFoundError(2, "No such file or directory", path)
        return toml.encode("utf-8", "surrogateescape")

    app = {"app": "hello:App"} if require_app else {}
    return load(
        app | dict(cli or {}), environ or {}, folder=folder, read=read, host=lambda: host, require_app=require_app
    )


def errors(
    cli: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None, toml: str = ""
) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        configure(cli, environ, toml)
    for line in raised.value.errors:
        assert len(line.splitlines()) == 1, line
    return raised.value.errors
