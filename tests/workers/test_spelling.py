"""A name that there is not is answered with those that may have been meant."""

from __future__ import annotations

import pytest

from preforkd.workers.spelling import similar


@pytest.mark.parametrize(
    ("word", "most", "likeness", "found"),
    [
        ("worker", 3, 0.6, ["workers", "worker_class"]),
        ("worker", 1, 0.6, ["workers"]),
        ("worker", 3, 0.9, ["workers"]),
        ("zzz", 3, 0.6, []),
    ],
)
def test_the_likest_come_first(word: str, most: int, likeness: float, found: list[str]) -> None:
    assert similar(word, {"worker_class": 1, "bind": 2, "workers": 3}, most, likeness) == found
