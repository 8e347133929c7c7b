"""Fuzzing of the compiled responses beside the reference: `python -m tests.fuzz.fuzz_heads --seconds 600`.

What the tests do with responses is done in any order with any bytes; both forms have to do the same. CONTRIBUTING.md
says how to run it under AddressSanitizer.
"""

from __future__ import annotations

import argparse
import random
import time
from typing import Any

from preforkd.workers.http import compiled
from tests.workers.http.responses import Circumstances, Step, both, of_asgi, of_class, of_wsgi
from tests.workers.http.test_heads import BODIES, NAMES, OTHERWISE, SENT, STATUSES, VALUES, encoded

ATTRIBUTES = ["lines", "status", "content_length", "length_line", "exchange", "_writer", "_left", "_plain", "_close"]
ODD: list[Any] = [None, 5, "a", b"a", (), ("a",), ["a", "b"], (b"a", "b"), (bytearray(b"a"), b"b"), object]


def text(random_: random.Random, known: list[str]) -> str:
    """Return a text of the tests, mostly, else any."""
    one = random_.choice(known)
    if random_.random() < 0.2:
        place = random_.randrange(len(one) + 1)
        one = one[:place] + chr(random_.randrange(random_.choice((128, 256, 0xD800)))) + one[place:]
    return one


def pair(random_: random.Random) -> Any:
    """Return a field, mostly a right one."""
    if random_.random() < 0.05:
        return random_.choice(ODD)
    if random_.random() < 0.3:
        return random_.choice(["Content-Length", "content-length"]), random_.choice(["0", "3", "12", "40000"])
    return text(random_, NAMES), text(random_, VALUES)


def body(random_: random.Random) -> Any:
    """Return a body, or what is none."""
    return random_.choice([*BODIES, b"abc", random_.randbytes(random_.randrange(50))])


def step(random_: random.Random) -> Step:
    """Return something that is done with a response."""
    name = random_.choice(
        ["send_headers", "write_eof", "force_close", "enable_chunked_encoding", "write", "send_whole"]
    )
    if random_.random() < 0.4:
        field = pair(random_)
        return "add_header", field if isinstance(field, tuple) else (field,), {}
    if random_.random() < 0.1:
        return "__setattr__", (random_.choice(ATTRIBUTES), random_.choice([None, 5, "a", b"a", (), *STATUSES])), {}
    if random_.random() < 0.05:
        return "__delattr__", (random_.choice(ATTRIBUTES),), {}
    return name, (body(random_),) if name in ("write", "send_whole") else (), {}


def message(random_: random.Random) -> Any:
    """Return a message of an ASGI app."""
    if random_.random() < 0.5:
        fields: Any = [encoded(pair(random_)) for _ in range(random_.randrange(4))]
        one: dict[str, Any] = {
            "type": "http.response.start",
            "status": random_.choice([200, 404, *STATUSES]),
            "headers": random_.choice([fields, fields, tuple(fields), random_.choice(ODD)]),
        }
    else:
        one = {"type": "http.response.body", "body": body(random_), "more_body": random_.choice([True, False])}
    if random_.random() < 0.2:
        del one[random_.choice(list(one))]
    return one


def main() -> None:
    """Fuzz for a while and say how much."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=float, default=60.0)
    arguments.add_argument("--seed", type=int, default=0)
    chosen = arguments.parse_args()
    compiled.choose("compiled")
    random_ = random.Random(chosen.seed)
    ends = time.monotonic() + chosen.seconds
    runs = 0
    while time.monotonic() < ends:
        given = Circumstances(**dict(random_.choices(OTHERWISE, k=random_.choice((0, 0, 1, 2, 5)))))
        status = random_.choice([200, 404, *STATUSES])
        steps = [step(random_) for _ in range(random_.randrange(6))] + random_.choice([[], SENT])
        fields = [pair(random_) for _ in range(random_.randrange(4))]
        line = random_.choice(["200 OK", "404 Not Found", f"{status} {text(random_, VALUES)}", status])
        messages = [message(random_) for _ in range(random_.randrange(5))]
        for pure, ours in (
            both(of_class, given, (status,), {}, steps),
            both(of_wsgi, given, line, fields, steps),
            both(of_asgi, given, messages),
        ):
            runs += 1
            if ours != pure:
                said = f"{given}\n{status} {steps}\n{line} {fields}\n{messages}\n{pure}\n{ours}"
                raise SystemExit(f"they differ: {said}")
    print(f"{runs} responses: no difference")


if __name__ == "__main__":
    main()
