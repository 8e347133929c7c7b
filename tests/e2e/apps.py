"""App files that a test writes, and rewrites for a reload."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.daemon import APPS


class AppFile:
    """A copy of a test site in a file of the test's own.

    Args:
        folder: where the file is made.
        source: what it is a copy of.
        attribute: the name of the app in it.
    """

    def __init__(self, folder: Path, source: Path = APPS / "site.py", attribute: str = "Site") -> None:
        self.path = folder / "app.py"
        self.target = f"{self.path}:{attribute}"
        self._source = source.read_text()
        self.version("1")

    def version(self, version: str, first: str = "", **replaced: str) -> None:
        """Deploy the site with that version in its answers.

        Args:
            version: for the answers.
            first: Python code to run at the end of the import.
            replaced: for the name of a function, code that comes before its first call that is awaited.
        """
        text = self._source.replace('VERSION = "1"', f'VERSION = "{version}"')
        for name, code in replaced.items():
            text = text.replace(f"await {name}(", f"{code}\n    await {name}(", 1)
        self.deploy(text + "\n\n" + first)

    def broken(self) -> int:
        """Deploy a site that fails while it is imported; the line at fault."""
        before = self._source.count("\n") + 2
        self.deploy(self._source + '\n\nraise RuntimeError("this version is broken")\n')
        return before + 1

    def deploy(self, text: str) -> None:
        """Replace the file by rename, as a careful deploy does: no worker ever reads half a file."""
        new = self.path.with_suffix(".new")
        new.write_text(text)
        new.replace(self.path)
