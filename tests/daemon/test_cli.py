"""The entry: signals are obeyed before anything else has been imported."""

from __future__ import annotations

import re
import signal
import subprocess
import sys

import pytest


def test_the_signals_come_first_and_the_imports_after() -> None:
    code = (
        "import sys, preforkd.daemon.cli; early = {'click', 'preforkd.daemon.command'} & set(sys.modules); "
        "import signal; from preforkd.daemon import signals; signals.install_early = lambda: print('handlers', early); "
        "sys.argv = ['preforkd', '-w', '1', '--version']; sys.exit(preforkd.daemon.cli.main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0
    assert re.fullmatch(r"handlers set\(\)\npreforkd [\d.]+ .*\n", done.stdout)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_during_the_imports_is_obeyed(signum: signal.Signals) -> None:
    # The imports take their time; the process sends itself the signal from within one of them.
    code = (
        "import sys, os, types, preforkd.daemon.cli\n"
        "class Slow:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'preforkd.daemon.master':\n"
        f"            os.kill(os.getpid(), {int(signum)}); print('survived', flush=True)\n"
        "sys.meta_path.insert(0, Slow())\n"
        "sys.exit(preforkd.daemon.cli.main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_version_is_said_without_importing_the_daemon() -> None:
    code = (
        "import sys, preforkd.daemon.cli; sys.argv = ['preforkd', '--version']; code = preforkd.daemon.cli.main(); "
        "print({'click', 'preforkd.daemon.command', 'importlib.metadata'} & set(sys.modules)); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0
    assert re.fullmatch(r"preforkd [\d.]+ .*\nset\(\)\n", done.stdout)
