"""What somebody may have meant who has written a name that there is not."""

from __future__ import annotations

from collections.abc import Iterable


def similar(word: str, known: Iterable[str], most: int = 3, likeness: float = 0.6) -> list[str]:
    """Return the names that are most like a word, the likest first.

    Args:
        word: as it was written.
        known: the names that there are.
        most: so many at most.
        likeness: from 0 to 1: names that are less like it are left out.
    """
    import difflib  # here: only what has failed needs it, and a start takes the longer for each module

    return difflib.get_close_matches(word, list(known), n=most, cutoff=likeness)
