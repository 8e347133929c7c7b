"""Which rows and servers the words of --only name."""

from __future__ import annotations

import pytest

from tests.benchmarks.choice import choose

ROWS = ("get", "post")
SERVERS = ("limit", "preforkd-asgi", "preforkd-wsgi", "granian-asgi")


def test_no_word_means_everything() -> None:
    assert choose([], ROWS, SERVERS) == (list(ROWS), list(SERVERS))


def test_a_row_is_measured_with_all_servers() -> None:
    assert choose(["post"], ROWS, SERVERS) == (["post"], list(SERVERS))


def test_a_part_of_a_name_means_all_servers_that_have_it() -> None:
    assert choose(["asgi"], ROWS, SERVERS) == (list(ROWS), ["limit", "preforkd-asgi", "granian-asgi"])


def test_rows_and_servers_narrow_each_other_and_the_limit_stays() -> None:
    assert choose(["preforkd-wsgi", "get"], ROWS, SERVERS) == (["get"], ["limit", "preforkd-wsgi"])


def test_a_word_that_names_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown: pots"):
        choose(["pots"], ROWS, SERVERS)
