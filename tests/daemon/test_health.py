"""The quick way of `preforkctl health`: which arguments it takes itself."""

from __future__ import annotations

import pytest

from preforkd.daemon.health import TIMEOUT, read, run


def test_the_plain_forms_are_read_without_click() -> None:
    question = read(["--admin", "a:1", "--admin=b:2", "health", "--live", "--timeout", "7"], {})
    assert question is not None
    assert (question.admin, question.pid_file, question.live, question.timeout) == (["a:1", "b:2"], "", True, 7.0)
    question = read(["--pid=/run/pid", "health"], {"PREFORKD_ADMIN": "c:3"})
    assert question is not None
    assert (question.admin, question.pid_file, question.live, question.timeout) == ([], "/run/pid", False, TIMEOUT)


@pytest.mark.parametrize(
    "arguments",
    [[], ["status"], ["health", "--help"], ["health", "health"], ["--admin"], ["health", "--admin"],
     ["health", "--timeout", "soon"], ["health", "--timeout", "0"], ["--admin", "health"]],
)  # fmt: skip
def test_all_else_is_for_click(arguments: list[str]) -> None:
    assert read(arguments, {}) is None


def test_completion_is_for_click() -> None:
    assert read(["health"], {"_PREFORKCTL_COMPLETE": "bash_complete"}) is None


def test_a_daemon_that_cannot_be_found_is_unhealthy(capsys: pytest.CaptureFixture[str]) -> None:
    question = read(["health"], {})
    assert question is not None
    assert run(question) == 1
    assert capsys.readouterr().err.startswith("unhealthy: which daemon?")
