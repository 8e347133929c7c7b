"""Values: the same in every source, refused with what would be right, and written as TOML that reads back."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preforkd.daemon.address import FdAddress, TcpAddress
from preforkd.daemon.options import DECLARATIONS
from preforkd.daemon.tls_values import Secret
from tests.daemon.sources import configure, errors


@pytest.mark.parametrize(
    ("name", "raw", "value"),
    [
        ("workers", 7, 7),
        ("workers", "7", 7),
        ("workers", "auto", 4),
        ("backlog", 65535, 65535),
        ("keep_alive", 0, 0.0),
        ("keep_alive", 0.5, 0.5),
        ("keep_alive", "75", 75.0),
        ("keep_alive", "1.5", 1.5),
        ("keep_alive", "500ms", 0.5),
        ("keep_alive", "30s", 30.0),
        ("keep_alive", "2m", 120.0),
        ("keep_alive", "1h", 3600.0),
        ("limit_body", "10M", 10 * 1024**2),
        ("limit_body", "1g", 1024**3),
        ("limit_body", "64k", 65536),
        ("limit_body", 0, 0),
        ("limit_connections", 10, 10),
        ("limit_connections", "auto", 922),
        ("debug", True, True),
        ("debug", "on", True),
        ("debug", "0", False),
        ("debug", "False", False),
        ("log_format", "json", "json"),
        ("proc_name", "shop", "shop"),
        ("health_path", "/healthz", "/healthz"),
        ("max_requests_jitter", 7, 7),
        ("max_requests_jitter", "7", 7),
        ("max_requests_jitter", "7%", 0),
        ("drain_streams", "auto", "auto"),
        ("drain_streams", "late", "late"),
        ("drain_streams", True, "all"),
        ("drain_streams", False, "late"),
        ("drain_streams", "1", "all"),
        ("drain_streams", "off", "late"),
        ("server_header", "shop/1.0 (blue)", "shop/1.0 (blue)"),
        ("server_header", "OFF", ""),
        ("server_header", False, ""),
        ("trial_errors", 1, 1.0),
        ("trial_errors", "0.5", 0.5),
        ("trial_errors", "0.5%", 0.5),
        ("trial_errors", "2 %", 2.0),
        ("umask", "27", "027"),
        ("umask", "0027", "027"),
        ("umask", "", ""),
        ("bind", ":80", (TcpAddress("0.0.0.0", 80),)),
        ("bind", ":80, fd:3", (TcpAddress("0.0.0.0", 80), FdAddress(3))),
        ("bind", [":80", "[::]:80"], (TcpAddress("0.0.0.0", 80), TcpAddress("::", 80))),
    ],
)
def test_a_value_means_the_same_in_every_source(name: str, raw: object, value: object) -> None:
    assert getattr(configure(toml=f"{name} = {json.dumps(raw)}").options, name) == value
    if isinstance(raw, str):
        assert getattr(configure({name: raw}).options, name) == value
        assert getattr(configure(environ={f"PREFORKD_{name.upper()}": raw}).options, name) == value


@pytest.mark.parametrize(
    ("name", "toml", "said"),
    [
        ("workers", "true", "true is not a whole number"),
        ("trial_errors", "101", "101 is not a percentage from 0 to 100: write it as in 1 or 0.5"),
        ("trial_errors", "-1", "is not a percentage"),
        ("trial_errors", "true", "is not a percentage"),
        ("trial_errors", "nan", "is not a percentage"),
        ("trial_errors", '"many"', "is not a percentage"),
        ("workers", "1.0", "1.0 is not a whole number"),
        ("workers", "0", "from 1 to 1000"),
        ("workers", '"two"', '"two" is not'),
        ("workers", '"+2"', "is not a whole number"),
        ("workers", '"1_0"', "is not a whole number"),
        ("workers", '"٣"', "is not a whole number"),
        ("workers", '" 2"', "is not a whole number"),
        ("workers", '""', "is not a whole number"),
        ("workers", "[2]", "a list is not a whole number"),
        ("workers", "2026-01-01", "a date is not a whole number"),
        ("backlog", "0", "from 1 to 65535"),
        ("backlog", '"auto"', "is not a whole number"),
        ("limit_concurrency", "-1", "of 0 or more"),
        ("limit_concurrency", str(2**31), "of 0 or more"),
        ("limit_headers", "0", "of 1 or more"),
        ("keep_alive", "-1", "is not a time"),
        ("keep_alive", "-0.5", "is not a time"),
        ("keep_alive", '"-1"', "is not a time"),
        ("keep_alive", "nan", "nan is not a time"),
        ("keep_alive", "inf", "inf is not a time"),
        ("keep_alive", '"inf"', "is not a time"),
        ("keep_alive", '"1e3"', "is not a time"),
        ("keep_alive", '"5 s"', "is not a time"),
        ("keep_alive", '"5d"', "is not a time"),
        ("keep_alive", "true", "true is not a time"),
        ("keep_alive", "1" + "0" * 400, "is not a time"),
        ("keep_alive", "31536001", "to a year"),
        ("startup_timeout", "0", "from 0.1 s"),
        ("limit_body", "-1", "is not a size"),
        ("limit_body", "1.5", "is not a size"),
        ("limit_body", '"1.5M"', "is not a size"),
        ("limit_body", '"10MB"', "is not a size"),
        ("limit_body", "true", "true is not a size"),
        ("limit_request_line", "0", "of 1 or more"),
        ("debug", "1", "1 is neither true nor false"),
        ("debug", '"maybe"', '"maybe" is neither true nor false'),
        ("log_level", '"loud"', "not one of debug, info"),
        ("log_level", "3", "3 is not one of"),
        ("interface", '"ajp"', "not one of auto, protocol, asgi, wsgi"),
        ("access_log_format", '"%(x)s"', "unknown atom"),
        ("access_log_format", '"%(h)s %d"', "unknown atom"),
        ("access_log_format", "7", "7 is not text"),
        ("proc_name", "true", "true is not text"),
        ("proc_name", '"a\\nb"', "control character"),
        ("proc_name", '"a\\u0000"', "control character"),
        ("health_path", '"healthz"', "is not a path: begin it with a slash"),
        ("health_path", '"/health?x"', "is not a path"),
        ("health_path", '"/he alth"', "is not a path"),
        ("health_path", "true", "true is not a path"),
        ("max_requests_jitter", '"101%"', "is not a whole number of 0 or more, or a percentage from 0% to 100%"),
        ("max_requests_jitter", '"-1%"', "is not a whole number"),
        ("max_requests_jitter", '"%"', "is not a whole number"),
        ("max_requests_jitter", "0.1", "0.1 is not a whole number"),
        ("max_requests_jitter", "-1", "is not a whole number"),
        ("max_requests_jitter", "true", "true is not a whole number"),
        ("drain_streams", '"soon"', '"soon" is not one of auto, all, late'),
        ("drain_streams", "2", "2 is not one of"),
        ("server_header", '"a\\r\\nX: y"', "is not a header value: write printable ASCII"),
        ("server_header", '"café"', "is not a header value"),
        ("server_header", '" a"', "is not a header value"),
        ("server_header", '""', '"" is not a header value'),
        ("server_header", "true", "true is not a header value"),
        ("umask", "27", "27 is not a umask: write octal digits as text"),
        ("umask", '"888"', '"888" is not a umask'),
        ("umask", '"1777"', '"1777" is not a umask'),
        ("bind", "8000", "8000 is not an address"),
        ("bind", "[8000]", "8000 is not an address"),
        ("bind", "[]", "an empty list"),
        ("admin", '["tls::80"]', '"tls:0.0.0.0:80": only --bind speaks TLS: write the address without "tls:"'),
        ("bind", '[":80", ":80"]', '"0.0.0.0:80" is given twice'),
        ("bind", '":80,"', "an empty address"),
        ("bind", '"x"', "no port"),
    ],
)
def test_a_wrong_value_is_refused_with_its_origin(name: str, toml: str, said: str) -> None:
    [line] = errors(toml=f"{name} = {toml}")
    assert line.startswith(f"{name} in preforkd.toml: ")
    assert said in line


def test_a_variable_with_bytes_that_are_not_utf8_is_refused() -> None:
    [line] = errors(environ={"PREFORKD_PROC_NAME": "a\udcff"})
    assert "not UTF-8" in line


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10)


@given(st.sampled_from(DECLARATIONS), scalars | st.lists(scalars, max_size=3))
def test_any_value_is_read_or_refused_in_one_line_and_reads_back(declaration: Any, raw: object) -> None:
    try:
        value = declaration.kind.read(raw)
        said = declaration.kind.write(value)
    except ValueError as error:
        value, said = None, str(error)
    assert len(said.splitlines()) == 1
    if value is not None and not isinstance(declaration.kind, Secret):  # which is never written
        assert declaration.kind.read(tomllib.loads(f"x = {said}")["x"]) == value
