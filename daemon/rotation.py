"""When changed certificate files are loaded, and when their end is warned of. Pure: no file, no clock.

Whoever renews a certificate writes two files at least, one after the other (certbot), all of them in another folder to
which a link is switched then (Kubernetes), or the key first (cert-manager). So a set of files that does not fit may
only be half written: it is tried again until nothing of it has changed for a while, and only then refused.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

SETTLED: Final = 5.0
"""Seconds without a change after which files that do not fit are a mistake, and not being written."""
DAY: Final = 86400.0
WARN_BEFORE: Final = (14 * DAY, DAY, 0.0)
"""Seconds before the end of a certificate at which it is warned of."""

Signature = tuple[tuple[int, ...] | None, ...]
"""What tells a set of files from any other: of each its device, inode, size and times; None: it is not there."""


@dataclass(frozen=True, slots=True)
class Watch:
    """What is known of a set of files.

    Attributes:
        loaded: what is served by.
        refused: what has been refused, and said so.
        changed: the last change that is neither.
        since: when that was seen, seconds of the monotonic clock.
    """

    loaded: Signature
    refused: Signature | None = None
    changed: Signature | None = None
    since: float = 0.0


def seen(watch: Watch, now: Signature, at: float) -> tuple[Watch, bool]:
    """Note what the files look like; tells whether they should be loaded.

    Args:
        watch: what is known.
        now: what they look like.
        at: seconds of the monotonic clock.
    """
    if now in (watch.loaded, watch.refused):
        return replace(watch, changed=None), False
    if now != watch.changed:
        return replace(watch, changed=now, since=at), True
    return watch, True


def failed(watch: Watch, at: float) -> tuple[Watch, bool]:
    """Note that what has changed cannot be served; tells whether that is to be said now, once."""
    if watch.changed is None or at - watch.since < SETTLED:
        return watch, False
    return replace(watch, refused=watch.changed, changed=None), True


def stage(not_before: float, not_after: float, now: float) -> int:
    """Return how many of the warnings about the end of a certificate are due.

    A certificate that lives for hours or days is not warned of from its first day on: a warning counts only if it
    comes in the second half of the life.

    Args:
        not_before: the beginning of its life, seconds since 1970.
        not_after: its end.
        now: the time.
    """
    life = not_after - not_before
    return sum(not_after - now <= before for before in WARN_BEFORE if before <= life / 2)


def warning(name: str, not_after: float, now: float) -> str:
    """Return what is said of a certificate that ends soon, or has ended."""
    date = f"{datetime.fromtimestamp(not_after, UTC):%Y-%m-%d %H:%M} UTC"
    left = not_after - now
    if left <= 0:
        return f"the certificate {name} has expired on {date}: clients refuse it; renew it"
    days, hours = int(left // DAY), max(int(left // 3600), 1)
    when = f"{days} days" if days > 1 else f"{hours} hour{'' if hours == 1 else 's'}"
    return f"the certificate {name} expires in {when}, on {date}: renew it"
