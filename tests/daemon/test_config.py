"""Configuration: which source wins, who gave each value, and every error of every source at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preforkd.daemon.address import TcpAddress, UnixAddress
from preforkd.daemon.config import ConfigError, load
from preforkd.daemon.host import Host
from tests.daemon.sources import HOST, configure, errors

# Precedence and origins


@pytest.mark.parametrize(
    ("sources", "value", "origin"),
    [
        ("cli environ toml generic", 1, "--workers on the command line"),
        ("environ toml generic", 2, "PREFORKD_WORKERS in the environment"),
        ("toml generic", 3, "workers in preforkd.toml"),
        ("generic", 5, "$WEB_CONCURRENCY in the environment"),
        ("", 4, "default"),
    ],
)
def test_the_most_particular_source_wins_and_is_named(sources: str, value: int, origin: str) -> None:
    given_by = sources.split()
    config = configure(
        {"workers": "1"} if "cli" in given_by else {},
        ({"PREFORKD_WORKERS": "2"} if "environ" in given_by else {})
        | ({"WEB_CONCURRENCY": "5"} if "generic" in given_by else {}),
        "workers = 3" if "toml" in given_by else "",
    )
    assert config.options.workers == value
    assert config.origins["workers"] == origin


def test_a_value_that_is_not_used_is_checked_all_the_same() -> None:
    assert errors({"workers": "1"}, {"PREFORKD_WORKERS": "none"}) == [
        'PREFORKD_WORKERS in the environment: "none" is not a whole number from 1 to 1000 or "auto"'
    ]


def test_a_generic_variable_that_is_not_needed_is_not_looked_at() -> None:
    config = configure({"bind": [":1"]}, {"PORT": "tcp://10.0.0.1:80", "PREFORKD_WORKERS": "2", "WEB_CONCURRENCY": "x"})
    assert config.options.bind == (TcpAddress("0.0.0.0", 1),)


def test_port_and_web_concurrency_of_a_platform_are_obeyed() -> None:
    config = configure(environ={"PORT": "5000", "WEB_CONCURRENCY": "3"})
    assert config.options.bind == (TcpAddress("0.0.0.0", 5000),)
    assert config.origins["bind"] == "$PORT in the environment"
    assert config.options.workers == 3


@pytest.mark.parametrize("blanks", [" {}", "{} ", " {}\t", "{}\r\n", "\u00a0{}"])
def test_blanks_around_the_value_of_any_variable_do_not_count(blanks: str) -> None:
    config = configure(
        environ={
            "PORT": blanks.format("5000"),
            "WEB_CONCURRENCY": blanks.format("3"),
            "PREFORKD_KEEP_ALIVE": blanks.format("7"),
            "PREFORKD_ACCESS_LOG": blanks.format("off"),
            "PREFORKD_LIMIT_BODY": blanks.format("1M"),
            "PREFORKD_PROC_NAME": blanks.format("shop web"),
        }
    )
    options = config.options
    assert options.bind == (TcpAddress("0.0.0.0", 5000),)
    assert (options.workers, options.keep_alive, options.access_log) == (3, 7.0, False)
    assert (options.limit_body, options.proc_name) == (1 << 20, "shop web")
    [line] = errors(environ={"PREFORKD_CONFIG": blanks.format("/x.toml")})
    assert line == "PREFORKD_CONFIG in the environment: /x.toml does not exist"


def test_a_variable_of_blanks_alone_is_not_set() -> None:
    config = configure(environ={"PORT": " ", "WEB_CONCURRENCY": "\t", "PREFORKD_KEEP_ALIVE": "  "})
    assert {config.origins[name] for name in ("bind", "workers", "keep_alive")} == {"default"}


def test_a_wrong_port_of_a_platform_is_an_error() -> None:
    [line] = errors(environ={"PORT": "http"})
    assert line.startswith("$PORT in the environment: ")


@pytest.mark.parametrize(
    "variable", ["PREFORKD_WORKERS", "PREFORKD_BIND", "PREFORKD_CONFIG", "WEB_CONCURRENCY", "PORT"]
)
def test_an_empty_variable_counts_as_not_set(variable: str) -> None:
    config = configure(environ={variable: ""})
    assert set(config.origins.values()) == {"APP on the command line", "default"}


def test_a_flag_that_is_off_on_the_command_line_beats_one_that_is_on_in_the_file() -> None:
    config = configure({"access_log": False}, toml="access_log = true\ndebug = true")
    assert config.options.access_log is False
    assert config.options.debug is True


# Errors


def test_all_errors_of_all_sources_are_told_at_once() -> None:
    lines = errors({"workers": "x"}, {"PREFORKD_BACKLOG": "y", "PREFORKD_WORKER": "1"}, "keep_alive = -1\nwrokers = 2")
    assert [line.split(":")[0] for line in lines] == [
        "PREFORKD_WORKER in the environment",
        "wrokers in preforkd.toml",
        "PREFORKD_BACKLOG in the environment",
        "--workers on the command line",
        "keep_alive in preforkd.toml",
    ]


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("wrokers = 2", "wrokers in preforkd.toml: no such option; did you mean workers?"),
        ("keep-alive = 2", "no such option; did you mean keep_alive"),
        ("Workers = 2", "no such option; did you mean workers?"),
        ("config = 'x.toml'", "config in preforkd.toml: no such option"),
        ("xyz = 2", "no such option; `preforkd --help` lists them"),
        ('"a\\nb" = 2', "a\\nb in preforkd.toml: no such option"),
        ("[server]\nworkers = 2", "[server] in preforkd.toml: no such table"),
        ("workers = ", "/srv/preforkd.toml is not TOML: Invalid value (at end of document)"),
        ("workers = 2\nworkers = 3\n", "Cannot overwrite a value (at line 2"),
        ("proc_name = 'a\udcff'", "/srv/preforkd.toml is not UTF-8 (byte 14)"),
    ],
)
def test_a_wrong_file_is_refused(toml: str, said: str) -> None:
    [line] = errors(toml=toml)
    assert said in line


def test_an_unknown_variable_is_refused_with_a_suggestion() -> None:
    [line] = errors(environ={"PREFORKD_KEEPALIVE": "2"})
    assert line == ("PREFORKD_KEEPALIVE in the environment: no such option; did you mean PREFORKD_KEEP_ALIVE?")
    [line] = errors(environ={"PREFORKD_PORT": "80"})
    assert "PREFORKD_PORT in the environment: no such option" in line
    [line] = errors(environ={"PREFORKD_workers": "2"})
    assert "did you mean PREFORKD_WORKERS" in line


def test_the_variables_of_a_kubernetes_service_of_that_name_are_not_ours() -> None:
    config = configure(
        environ={
            "PREFORKD_SERVICE_HOST": "10.0.0.1",
            "PREFORKD_SERVICE_PORT": "80",
            "PREFORKD_SERVICE_PORT_HTTP": "80",
            "PREFORKD_PORT": "tcp://10.0.0.1:80",
            "PREFORKD_PORT_80_TCP": "tcp://10.0.0.1:80",
            "PREFORKD_PORT_80_TCP_PROTO": "tcp",
            "PREFORKD_PORT_80_TCP_PORT": "80",
            "PREFORKD_PORT_80_TCP_ADDR": "10.0.0.1",
            "PREFORKD_SHOP_SERVICE_HOST": "10.0.0.2",
            "PREFORKD_SHOP_PORT": "udp://10.0.0.2:80",
            "PREFORKD_SHOP_PORT_80_TCP_ADDR": "10.0.0.2",
        }
    )
    assert config.options.bind == (TcpAddress("127.0.0.1", 8000),)


def test_a_missing_app_is_an_error_with_an_example_unless_none_is_needed() -> None:
    with pytest.raises(ConfigError, match=r"no app given: name it, as in `preforkd hello\.py:HttpRequestHandler`"):
        load({}, {}, folder="/nowhere", host=lambda: HOST)
    assert configure(require_app=False).options.app == ""


def test_a_file_that_is_named_has_to_exist_and_the_default_one_has_not() -> None:
    assert configure(toml=None).file is None
    assert errors({"config": "x.toml"}) == ["--config on the command line: /srv/x.toml does not exist"]
    assert errors(environ={"PREFORKD_CONFIG": "/x.toml"}) == [
        "PREFORKD_CONFIG in the environment: /x.toml does not exist"
    ]


def test_a_file_that_cannot_be_read_is_an_error() -> None:
    def read(path: str) -> bytes:
        raise PermissionError(13, "Permission denied", path)

    with pytest.raises(ConfigError, match=r"^/srv/preforkd\.toml cannot be read: Permission denied$"):
        load({"app": "a:b"}, {}, folder="/srv", read=read, host=lambda: HOST)


def test_the_file_that_is_named_is_read_and_named_in_the_origins(tmp_path: Path) -> None:
    (tmp_path / "shop.toml").write_text("app = 'shop:App'\nkeep_alive = 5\n")
    config = load({"config": "shop.toml"}, {"PREFORKD_CONFIG": "other.toml"}, folder=str(tmp_path), host=lambda: HOST)
    assert config.options.keep_alive == 5
    assert config.origins["app"] == "app in shop.toml"
    assert config.file == "shop.toml"
    elsewhere = load({"config": str(tmp_path / "shop.toml")}, {}, folder="/srv", host=lambda: HOST)
    assert elsewhere.origins["app"] == f"app in {tmp_path}/shop.toml"


# What preforkd makes of the values


def test_auto_is_put_into_a_number_and_the_reason_said() -> None:
    config = configure(host=Host(64, 1.5, 1024))
    assert config.options.workers == 2
    assert config.why("workers") == "default, auto: 64 CPUs usable, cgroup quota of 1.5"
    assert configure({"workers": "3"}).why("workers") == "--workers on the command line"


def test_a_limit_that_the_system_cannot_hold_is_warned_of() -> None:
    [warning] = configure({"limit_connections": "5000"}).warnings
    assert "limit_connections is 5000" in warning
    assert "1024 files" in warning
    assert configure({"limit_connections": "1000"}).warnings == ()


def test_paths_are_absolute_whatever_the_folder_later_is() -> None:
    config = configure({"chdir": "app", "app_dir": "src", "bind": ["unix:run/a.sock", "unix:@a"]})
    assert config.options.chdir == "/srv/app"
    assert config.options.app_dir == "/srv/app/src"
    assert config.options.bind == (UnixAddress("/srv/app/run/a.sock"), UnixAddress("@a"))
    assert configure({"chdir": "/x", "app_dir": "/y"}).options.app_dir == "/y"
    assert configure().options.app_dir == configure().options.chdir == "/srv"


def test_loading_again_gives_the_same_unless_a_source_has_changed() -> None:
    assert configure({"workers": "2"}, {"PORT": "1"}, "debug = true") == configure(
        {"workers": "2"}, {"PORT": "1"}, "debug = true"
    )


# What follows from other options


@pytest.mark.parametrize(
    ("requests", "jitter", "most"),
    [("1000", None, 100), ("1000", "5%", 50), ("7", "10%", 1), ("0", "10%", 0), ("9", "50", 50)],
)
def test_a_jitter_in_percent_is_of_the_requests(requests: str, jitter: str | None, most: int) -> None:
    options = configure({"max_requests": requests, "max_requests_jitter": jitter}).options
    assert options.max_requests_jitter == most


@pytest.mark.parametrize(
    ("workers", "surge", "most"), [("1", "auto", 1), ("9", None, 3), ("8", "auto", 2), ("2", "5", 5)]
)
def test_a_quarter_of_the_workers_may_boot_beside_the_others(workers: str, surge: str | None, most: int) -> None:
    assert configure({"workers": workers, "surge": surge}).options.surge == most


def test_the_pid_file_is_found_from_the_folder_of_the_app() -> None:
    assert configure({"pid": "run/x.pid", "chdir": "/app"}).options.pid == "/app/run/x.pid"
    assert configure({"pid": "/run/x.pid", "chdir": "/app"}).options.pid == "/run/x.pid"
    assert configure().options.pid == ""


# Properties


@given(st.dictionaries(st.text(max_size=10), st.text(max_size=10), max_size=5))
def test_variables_of_others_never_matter(environ: dict[str, str]) -> None:
    meant = ("PORT", "WEB_CONCURRENCY")
    ours = {name: text for name, text in environ.items() if not name.startswith("PREFORKD_") and name not in meant}
    assert configure(environ=ours | {"LANG": "C"}).options == configure().options


def test_a_daemon_that_a_worker_starts_takes_what_that_one_is_for_no_option() -> None:
    assert configure({}, {"PREFORKD_SLOT": "3", "PREFORKD_GENERATION": "7"}).options.app == "hello:App"


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        (
            "trial = 0\ntrial_errors = 1",
            ["trial_errors in preforkd.toml: there is no trial, for trial is 0 (trial in "],
        ),
        ("trial = 0\ntrial_workers = 1", ["trial_workers in preforkd.toml: there is no trial, for trial is 0"]),
        (
            "trial_workers = 3\nworkers = 2",
            ["trial_workers in preforkd.toml: 3 is more than there are: 2 workers (workers"],
        ),
        ("trial_workers = 5", ["5 is more than there are: 4 workers (default: 4 CPUs usable, no cgroup quota)"]),
        (
            "trial = 0\ntrial_workers = 9\ntrial_errors = 1",
            ["trial_workers in preforkd.toml: there is no trial", "trial_errors", "9 is more than there are"],
        ),
    ],
)
def test_a_trial_that_cannot_be_is_refused(toml: str, said: list[str]) -> None:
    found = errors(toml=toml)
    assert len(found) == len(said)
    assert all(text in line for text, line in zip(said, found, strict=True)), found


def test_a_canary_may_be_all_workers_and_matters_in_no_development() -> None:
    assert configure(toml="trial_workers = 4").options.trial_workers == 4
    assert configure({"reload": True}, toml="trial_workers = 4\ntrial = 0").options.workers == 1
