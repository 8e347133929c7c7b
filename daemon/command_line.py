"""The command line as click reads it: every option, those of other servers, the help, and what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import click
from click.core import ParameterSource

from preforkd.daemon import foreign
from preforkd.daemon.config import DEFAULT_FILE, ConfigError
from preforkd.daemon.options import BY_NAME, DECLARATIONS, Declaration
from preforkd.daemon.values import Flag, StreamChoice

Run = Callable[[Mapping[str, object], Sequence[str]], int]
"""What is done with the options that were given, by name, and with what is to be said of those of other servers."""

_INTRODUCTION = "Serve APP over HTTP from forked worker processes."
_SOURCES = """Every option can also stand in a TOML file (keep_alive = 75) and in the environment
(PREFORKD_KEEP_ALIVE=75; several addresses, as PREFORKD_BIND takes them, have commas between them; PREFORKD_CONFIG is
the file).
The command line counts before the environment, and that before the file; $PORT (bind 0.0.0.0:$PORT) and
$WEB_CONCURRENCY (workers) count when nothing else gives the option. Times are seconds, or 500ms, 30s, 2m, 1h; sizes are
bytes, or 64k, 10M, 1G."""
_SIGNALS = (
    ("TERM", "stop: drain for --drain-delay, --graceful-timeout, --shutdown-timeout; INT (Ctrl-C): without the delay"),
    ("QUIT", "stop at once; so does a second TERM or INT"),
    ("HUP", "reload: configuration and code are read anew, no request is lost"),
    ("USR1", "reopen the logs"),
    ("USR2", "upgrade: replace the program in place, after a dry run has shown that the new one boots"),
    ("TTIN, TTOU", "one worker more, one less"),
)
_EXIT_CODES = "0 orderly, 1 internal error, 2 usage or configuration, 3 the app did not boot, 4 gave up, 128+n signal n"
_EXAMPLES = (
    "preforkd hello.py:HttpRequestHandler",
    "preforkd shop.web:Handler --bind 0.0.0.0:8080 --workers 4",
    "preforkd shop.web:Handler --bind unix:/run/shop/web.sock --config /etc/shop/preforkd.toml",
    "preforkd migrate gunicorn.conf.py    (prints a preforkd.toml, and runs nothing)",
)


class _Command(click.Command):
    """The command with its options in sections."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, section by section, and what is to be known of all of them."""
        records = {param.name: param.get_help_record(ctx) for param in self.get_params(ctx)}
        records["app"] = ("APP", BY_NAME["app"].help)  # click writes nothing about arguments
        for section in dict.fromkeys(one.section for one in DECLARATIONS):
            names = [one.name for one in DECLARATIONS if one.section == section]
            with formatter.section(section):
                formatter.write_dl([record for name in names if (record := records.get(name))])
        with formatter.section("Configuration"):
            formatter.write_dl([record for name, record in records.items() if record and name not in BY_NAME])
        with formatter.section("Sources"):
            formatter.write_text(_SOURCES)
        with formatter.section("Signals"):
            formatter.write_dl(_SIGNALS)
        with formatter.section("Exit codes"):
            formatter.write_text(_EXIT_CODES)
        with formatter.section("Examples"):
            for example in _EXAMPLES:
                formatter.write_text(example)


def _parameter(one: Declaration) -> click.Parameter:
    """An option of the command line; its value stays text, for `config` to read as it reads that of any source."""
    if one.name == "app":
        return click.Argument(["app"], required=False, metavar="APP")
    help_text = f"{one.help}  [{one.default_text or 'none'}]"
    if isinstance(one.kind, Flag):
        return click.Option([one.name, f"{one.flag}/{one.negative}"], default=None, help=help_text)
    if isinstance(one.kind, StreamChoice):
        word = f"[{one.kind.metavar}]"
        return click.Option(
            [one.name, one.flag], is_flag=False, flag_value=one.kind.alone, default=None, metavar=word, help=help_text
        )
    names = [one.name, *([one.short] if one.short else []), one.flag]
    return click.Option(names, multiple=one.repeatable, metavar=one.kind.metavar, help=help_text)


def _command(run: Callable[..., int]) -> click.Command:
    return _Command(
        "preforkd",
        callback=run,
        help=_INTRODUCTION,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
        params=[
            *(_parameter(one) for one in DECLARATIONS),
            click.Option(["config", "-c", "--config"], metavar="FILE", help=f"TOML file.  [./{DEFAULT_FILE} if there]"),
            click.Option(
                ["check", "--check"],
                is_flag=True,
                help="Start the app once as a worker does, touch no socket, say how it went.",
            ),
            click.Option(["print_config", "--print-config"], is_flag=True, help="Print all values and their origins."),
            click.Option(["version", "--version"], is_flag=True, help="Print the version."),
            *foreign.options(),
        ],
    )


def run(arguments: Sequence[str], then: Run) -> int:
    """Read the arguments, and do what they say.

    Args:
        arguments: without the program's name.
        then: is called unless only the help was asked for.

    Returns:
        The exit code.

    Raises:
        ConfigError: they cannot be understood, or what `then` raises.
    """

    def call(**values: object) -> int:
        cli, notes, errors = foreign.translate(_typed(values))
        if errors:
            raise ConfigError(errors)
        return then(cli, notes)

    try:
        code: int = _command(call).main(list(arguments), prog_name="preforkd", standalone_mode=False)
    except click.ClickException as exc:
        raise ConfigError([f"{exc.format_message()} (`preforkd --help` lists the options)"]) from exc
    return code


def _typed(values: Mapping[str, object]) -> dict[str, object]:
    source = click.get_current_context().get_parameter_source
    return {name: value for name, value in values.items() if source(name) is ParameterSource.COMMANDLINE}
