"""Whether an interpreter was built with PGO."""

from __future__ import annotations

from tests.benchmarks.interpreter import has_pgo


def test_configured_with_optimizations() -> None:
    assert has_pgo({"CONFIG_ARGS": "'--enable-optimizations' '--with-lto'"}, "/usr/local", "debian")


def test_compiled_with_a_profile() -> None:
    assert has_pgo({"PY_CFLAGS_NODIST": "-O3 -fprofile-use -fprofile-correction"}, "/opt/python", "")


def test_what_the_compiler_could_do_is_no_sign() -> None:
    config = {"CONFIG_ARGS": "'--enable-shared'", "PGO_PROF_USE_FLAG": "-fprofile-use -fprofile-correction"}
    assert not has_pgo(config, "/root/.pyenv/versions/3.11.7", "debian")


def test_debian_builds_its_own_with_it_and_does_not_say_so() -> None:
    assert has_pgo({"CONFIG_ARGS": "'--prefix=/usr'"}, "/usr", "debian")
    assert not has_pgo({"CONFIG_ARGS": "'--prefix=/usr'"}, "/usr", "slackware")
