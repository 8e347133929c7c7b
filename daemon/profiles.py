"""What a profile of a worker is written as: a file for speedscope, or collapsed stacks for flame graphs. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

SCHEMA: Final = "https://www.speedscope.app/file-format-schema.json"
MOST_SHOWN: Final = 10
_IDLE: Final = "(waits for events)"


def speedscope(found: Mapping[str, Any], name: str) -> str:
    """Return a profile in the format of speedscope: one for each thread, in microseconds, in the order of time.

    Args:
        found: as the worker has left it.
        name: of the whole.
    """
    frames = [
        {"name": frame, **({"file": file, "line": line} if file else {})} for frame, file, line in found["frames"]
    ]
    profiles = []
    for thread, of in enumerate(found["threads"]):
        runs = [(stack, weight) for one, stack, weight in found["runs"] if one == thread]
        profiles.append(
            {
                "type": "sampled",
                "name": of,
                "unit": "microseconds",
                "startValue": 0,
                "endValue": sum(weight for _, weight in runs),
                "samples": [found["stacks"][stack] for stack, _ in runs],
                "weights": [weight for _, weight in runs],
            }
        )
    return json.dumps(
        {
            "$schema": SCHEMA,
            "name": name,
            "exporter": "preforkctl",
            "activeProfileIndex": 0,
            "shared": {"frames": frames},
            "profiles": profiles,
        },
        ensure_ascii=False,
    )


def collapsed(found: Mapping[str, Any]) -> str:
    """Return a profile as lines of `thread;function;function microseconds`, as flame graph tools read them."""
    names = [f"{name} ({file}:{line})" if file else name for name, file, line in found["frames"]]
    names = [name.replace(";", ":").replace("\n", " ") for name in names]
    weights: Counter[str] = Counter()
    for thread, stack, weight in found["runs"]:
        weights[";".join([found["threads"][thread], *(names[frame] for frame in found["stacks"][stack])])] += weight
    return "".join(f"{stack} {weight}\n" for stack, weight in sorted(weights.items()))


def summary(found: Mapping[str, Any]) -> list[str]:
    """Return lines that say what there is to see: how much was looked at, and where the main thread was itself."""
    own: Counter[int] = Counter()
    main = found["threads"].index("main thread") if "main thread" in found["threads"] else -1
    for thread, stack, weight in found["runs"]:
        if thread == main:
            own[found["stacks"][stack][-1]] += weight
    total = sum(own.values()) or 1
    lines = [
        f"{found['looks']} looks at {len(found['threads'])} threads in {found['seconds']:.1f} s,"
        f" {found['late']} of them late; looking took {found['sampler_cpu']:.2f} s of CPU",
        "the main thread was in:",
    ]
    for frame, weight in own.most_common(MOST_SHOWN):
        name, file, line = found["frames"][frame]
        lines.append(f"{weight / total:6.1%}  {name}" + (f"  {file}:{line}" if file else ""))
    return lines
