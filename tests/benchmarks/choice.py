"""Which rows and servers the words of --only name."""

from __future__ import annotations

from collections.abc import Iterable

LIMIT = "limit"


def choose(words: Iterable[str], rows: Iterable[str], servers: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the names of the rows and servers that are wanted: all, where no word names one; the limit always.

    Args:
        words: each the name of a row, that of a server, or a part of that (`asgi`, `granian`).
        rows: names of all rows.
        servers: names of all servers; their parts are separated by hyphens.

    Raises:
        ValueError: a word names nothing.
    """
    wanted, rows, servers = set(words), list(rows), list(servers)
    names = {server: {server, *server.split("-")} for server in servers}
    if unknown := wanted - set(rows) - set().union(*names.values()):
        raise ValueError(
            f"unknown: {', '.join(sorted(unknown))}; rows are {', '.join(rows)}; servers are {', '.join(servers)}, "
            "and their parts"
        )
    chosen_rows = [row for row in rows if row in wanted] or rows
    chosen_servers = [server for server in servers if names[server] & wanted] or servers
    if LIMIT in servers and LIMIT not in chosen_servers:
        chosen_servers.insert(0, LIMIT)
    return chosen_rows, chosen_servers
