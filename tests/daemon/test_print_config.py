"""`--print-config`: TOML that gives the same configuration, and says of each value where it came from."""

from __future__ import annotations

import tomllib

from preforkd.daemon.host import Host
from preforkd.daemon.options import DECLARATIONS
from preforkd.daemon.print_config import as_toml
from tests.daemon.sources import configure


def test_the_printed_configuration_is_toml_that_gives_the_same_configuration() -> None:
    first = configure(
        {"workers": "2", "bind": [":80", "unix:run/a.sock"], "proc_name": 'say "hi" \\ é'},
        {"PREFORKD_KEEP_ALIVE": "1500ms"},
        "limit_body = '10M'",
    )
    text = as_toml(first)
    again = configure(toml=text, require_app=False)
    assert again.options == first.options
    assert set(tomllib.loads(text)) == {one.name for one in DECLARATIONS}


def test_the_printed_configuration_names_every_origin() -> None:
    text = as_toml(
        configure({"backlog": "7"}, {"PREFORKD_DEBUG": "yes", "PORT": "80"}, "keep_alive = 5", host=Host(64, 1.5, 1024))
    )
    lines = text.splitlines()
    assert 'app = "hello:App"  # APP on the command line' in lines
    assert "backlog = 7  # --backlog on the command line" in lines
    assert "debug = true  # PREFORKD_DEBUG in the environment" in lines
    assert 'bind = ["0.0.0.0:80"]  # $PORT in the environment' in lines
    assert "keep_alive = 5  # keep_alive in preforkd.toml" in lines
    assert "header_timeout = 15  # default" in lines
    assert 'workers = "auto"  # default; here 2: 64 CPUs usable, cgroup quota of 1.5' in lines


def test_the_printed_configuration_without_an_app_is_still_toml() -> None:
    assert "app" not in tomllib.loads(as_toml(configure(require_app=False)))
