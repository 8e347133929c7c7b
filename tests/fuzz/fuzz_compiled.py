"""Fuzzing of the compiled parser beside the reference: `python -m tests.fuzz.fuzz_compiled --seconds 600`.

Heads from the tests' vocabulary are mutated by bytes, cut, doubled and joined; what the compiled form takes has to be
what the reference says. CONTRIBUTING.md says how to run it under AddressSanitizer.
"""

from __future__ import annotations

import argparse
import random
import time

from preforkd.workers.http import compiled
from preforkd.workers.request_id import RequestIds
from tests.workers.gateways.descriptions import Both
from tests.workers.http.heads import FIELDS, LINES, describe, parsed

USUAL = [
    b"Accept: */*", b"User-Agent: x (y; z) \xe9", b"X-Request-Id: 7f1c", b"accept-encoding:\tgzip \t",
    b"Cookie: a=b; c",
    b"Connection: keep-alive", b"Content-Length: 0005", b"x-odd_name: ", b"Via:1.1 a",
    b"X-Forwarded-For: a", b"x_real_ip: a", b"X-Correlation-Id: a", b"x_request-id: b", b"X-Forwarded-New: c",
]  # fmt: skip


def mutated(random_: random.Random) -> bytes:
    """Return a head, mostly a usual one, or something that looks like one."""
    is_usual = random_.random() < 0.7
    line = random_.choice(LINES[:2] if is_usual else LINES)
    fields = [b"Host: a", *random_.choices(USUAL, k=random_.randrange(9))]
    if not is_usual:
        fields = random_.choices([*FIELDS, *USUAL], k=random_.randrange(9))
    random_.shuffle(fields)
    head = b"\r\n".join([line, *fields, b"", b""])
    for _ in range(random_.choice((0, 0, 1, 1, 2, 5))):
        place = random_.randrange(len(head) + 1)
        head = random_.choice(
            (
                head[:place] + bytes([random_.randrange(256)]) + head[place + 1 :],
                head[:place] + head[place + random_.randrange(20) :],
                head[:place] + random_.randbytes(random_.randrange(8)) + head[place:],
                head[:place] + head[random_.randrange(len(head) + 1) :],
                head[:place] + b"x" * random_.randrange(5000) + head[place:],
                head[:place],
            )
        )
    return head


def main() -> None:
    """Fuzz for a while and say how much."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=float, default=60.0)
    arguments.add_argument("--seed", type=int, default=0)
    chosen = arguments.parse_args()
    compiled.choose("compiled")
    parse = compiled.usual_head
    if parse is None:
        raise SystemExit("the compiled parser was not built")
    ids, both = RequestIds("X-Request-ID"), Both()
    random_ = random.Random(chosen.seed)
    ends = time.monotonic() + chosen.seconds
    runs = taken = 0
    while time.monotonic() < ends:
        head = mutated(random_)
        limit_headers, limit_body = random_.choice((0, 3, 100)), random_.choice((0, 4))
        message = parse(head, limit_headers, limit_body, random_.choice((100, 9000)))
        runs += 1
        if message is None:
            continue
        taken += 1
        if describe(message) != parsed(head[: head.find(b"\r\n\r\n") + 4]):
            raise SystemExit(f"they differ: {head!r}")
        ids.take(message, random_.random() < 0.8)
        if not both.agree(message):
            raise SystemExit(f"the scopes or environs differ: {head!r}")
    print(f"{runs} heads, {taken} of them taken by the compiled form: no difference")


if __name__ == "__main__":
    main()
