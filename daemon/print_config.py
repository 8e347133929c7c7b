"""The configuration in force, as a TOML file that says of each value where it came from."""

from __future__ import annotations

from preforkd.daemon.config import Config
from preforkd.daemon.options import DECLARATIONS, Declaration


def as_toml(config: Config) -> str:
    """Write the configuration so that it can be read back: "auto" stays, and what came of it is a comment."""
    lines: list[str] = []
    section = ""
    for one in DECLARATIONS:
        if one.section != section:
            section = one.section
            lines += ["", f"# {section}"]
        lines.append(_line(one, config))
    return "\n".join(lines).lstrip("\n") + "\n"


def _line(one: Declaration, config: Config) -> str:
    comment = config.origins[one.name]
    if reason := config.reasons.get(one.name):
        comment += f"; here {getattr(config.options, one.name)}: {reason}"
    line = f"{one.name} = {one.kind.write(config.asked[one.name])}"
    # An app that nobody has named cannot be written as a value.
    return f"# {line}  # {comment}" if one.name == "app" and not config.options.app else f"{line}  # {comment}"
