"""App files that a test writes, and rewrites for a reload."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.daemon import APPS

SOURCE = (APPS / "site.py").read_text()


class AppFile:
    """A copy of the test site in a file of the test's own.

    Args:
        folder: where the file is made.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "app.py"
        self.target = f"{self.path}:Site"
        self.version("1")

    def version(self, version: str, first: str = "") -> None:
        """Deploy the site with that version in its answers.

        Args:
            version: for the answers.
            first: Python code to run at the end of the import.
        """
        self._deploy(SOURCE.replace('VERSION = "1"', f'VERSION = "{version}"') + "\n\n" + first)

    def broken(self) -> int:
        """Deploy a site that fails while it is imported; the line at fault."""
        before = SOURCE.count("\n") + 2
        self._deploy(SOURCE + '\n\nraise RuntimeError("this version is broken")\n')
        return before + 1

    def _deploy(self, text: str) -> None:
        # By rename, as a careful deploy does: no worker ever reads half a file.
        new = self.path.with_suffix(".new")
        new.write_text(text)
        new.replace(self.path)
