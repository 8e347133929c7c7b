"""The pages for people: every link in them leads somewhere, and every option that they name exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from preforkd.daemon.options import DECLARATIONS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "deploy").rglob("*.md"))
FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The names by which a page's headings are linked to, as GitHub makes them."""
    text = FENCE.sub("", page.read_text())
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> Iterator[str]:
    """Where a page links to, but for other sites."""
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text())):
        if "://" not in target:
            yield target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_to_a_heading_in_it(page: Path) -> None:
    missing = []
    for target in links(page):
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            missing.append(target)
    assert missing == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen: set[Path] = set()
    new = {ROOT / "README.md"}
    while new:
        seen |= new
        found = {(page.parent / target.partition("#")[0]).resolve() for page in new for target in links(page)}
        new = {page for page in found if page.suffix == ".md"} - seen
    assert set(PAGES) - seen - {ROOT / "CHANGELOG.md"} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_lines_of_a_page_and_its_paragraphs_are_kept_apart_from_headings(page: Path) -> None:
    lines = FENCE.sub("", page.read_text()).splitlines()
    bare = [line for before, line in pairwise(lines) if re.match(r"#+ ", line) and before.strip()]
    assert bare == [], "a heading needs an empty line before it"


def test_the_reference_names_every_option() -> None:
    text = (ROOT / "deploy" / "docs" / "options.md").read_text()
    assert [one.name for one in DECLARATIONS if f"`{one.flag}`" not in text] == []
