"""Coverage-guided fuzzing of the protocol with atheris: `python -m tests.fuzz.fuzz_protocol tests/fuzz/corpus`.

Not part of the ordinary tests: atheris is not among their requirements. CONTRIBUTING.md says how to run it.
The first bytes of an input are read from its end: where it is divided, and whether the client half-closes.
"""

from __future__ import annotations

import sys

import atheris  # type: ignore[import-untyped]  # not installed with the tests' other requirements

with atheris.instrument_imports(include=["preforkd", "tests"]):
    from tests.fuzz.properties import check


def test_one_input(data: bytes) -> None:
    """Take one input of the fuzzer; an exception is a finding."""
    provider = atheris.FuzzedDataProvider(data)
    cuts = [provider.ConsumeIntInRange(0, 300) for _ in range(provider.ConsumeIntInRange(0, 6))]
    eof = provider.ConsumeBool()
    check(provider.ConsumeBytes(provider.remaining_bytes()), cuts, eof)


if __name__ == "__main__":
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()
