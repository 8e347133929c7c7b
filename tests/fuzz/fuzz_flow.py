"""Fuzzing of the compiled way of requests beside the reference: `python -m tests.fuzz.fuzz_flow --seconds 600`.

Any conversation has to come to the same in both forms. CONTRIBUTING.md says how to run it under AddressSanitizer.
"""

from __future__ import annotations

import argparse
import logging
import time
from random import Random

from tests.workers.http.conversations import KINDS, have, portions


def main() -> None:
    """Fuzz for a while and say how much."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=float, default=60.0)
    arguments.add_argument("--seed", type=int, default=0)
    chosen = arguments.parse_args()
    logging.disable()
    ends = time.monotonic() + chosen.seconds
    number = chosen.seed << 32
    while time.monotonic() < ends:
        number += 1
        said = portions(Random(number))
        for kind in KINDS:
            pure, ours = (have(form, kind, said, number) for form in ("pure", "compiled"))
            if ours != pure:
                raise SystemExit(f"they differ: {number} {kind} {said}\n{pure}\n{ours}")
    print(f"{len(KINDS) * (number - (chosen.seed << 32))} conversations: no difference")


if __name__ == "__main__":
    main()
