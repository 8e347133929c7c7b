"""The table of deploy/docs/migration.md, from options of others to ours: `python -m tests.daemon.migration_table`."""

from __future__ import annotations

from preforkd.daemon.equivalents import EQUIVALENTS, SERVERS, Equivalent
from preforkd.daemon.options import BY_NAME


def rows() -> list[str]:
    """The lines of the table, of the options that exist here."""
    head = ["| here | gunicorn | uvicorn | granian | hypercorn | uWSGI |", "|---" * (len(SERVERS) + 1) + "|"]
    return head + [_row(one) for one in EQUIVALENTS if one.ours in BY_NAME]


def _row(one: Equivalent) -> str:
    cells = [f"`{BY_NAME[one.ours].flag}`"]
    cells += [" ".join(f"`{flag}`" for flag in one.flags(server)) for server in SERVERS]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    print("\n".join(rows()))
