"""The kinds of value that an option can have: how each is read from text and from TOML, and written back."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Sequence
from typing import ClassVar, Protocol

from preforkd.daemon import address
from preforkd.workers.records import dataclass

AUTO = "auto"
"""The value that asks preforkd to choose."""

YEAR = 365 * 86400.0
"""The longest time an option takes, seconds: far beyond use, and far within what the kernel's timers hold."""

_NUMBER = re.compile(r"[0-9]{1,15}", re.ASCII)
_PERCENT = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?) ?%?", re.ASCII)
_DECIMAL = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)(ms|s|m|h)?", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}
_OCTAL = re.compile(r"0?[0-7]{1,3}", re.ASCII)
_SIZE = re.compile(r"([0-9]{1,15})([kKmMgG]?)", re.ASCII)
_BYTES = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_URL_PATH = re.compile(r"(/[!-\"$->@-~]*)?", re.ASCII)
_FIELD_VALUE = re.compile(r"[!-~]([ -~]{0,254}[!-~])?", re.ASCII)  # of RFC 9110 section 5.5, without obs-text and HTAB
_FIELD_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,46}[A-Za-z0-9])?", re.ASCII)
# Fields that mean something else to a request or a response.
_TAKEN_NAMES = frozenset([
    "authorization", "connection", "content-encoding", "content-length", "content-type", "cookie", "date", "expect",
    "forwarded", "host", "keep-alive", "location", "server", "set-cookie", "te", "trailer", "transfer-encoding",
    "upgrade",
])  # fmt: skip
_YES = ("1", "true", "yes", "on")
_NO = ("0", "false", "no", "off")


class Kind(Protocol):
    """A kind of value."""

    @property
    def metavar(self) -> str:
        """What stands for the value in the help."""

    def read(self, raw: object) -> object:
        """Make the value of what a source gave.

        Args:
            raw: a `str` from the command line or the environment (a list of them for an option that repeats), or
                what TOML gave.

        Raises:
            ValueError: it is not such a value; the message says what was given and what would be right.
        """

    def write(self, value: object) -> str:
        """The value as TOML."""


def quoted(raw: object) -> str:
    """What a user gave, on one line and as they would recognise it."""
    if isinstance(raw, str):
        return json.dumps(raw if len(raw) <= 80 else raw[:77] + "...", ensure_ascii=not raw.isprintable())
    if isinstance(raw, bool):
        return "true" if raw else "false"
    return str(raw) if isinstance(raw, int | float) else f"a {type(raw).__name__}"


@dataclass(frozen=True, slots=True)
class Count:
    """A whole number in a range; with `auto`, also the word "auto"."""

    least: int = 0
    most: int = 2**31 - 1
    auto: bool = False
    metavar: str = "N"

    def read(self, raw: object) -> int | str:
        """See `Kind.read`."""
        if self.auto and raw == AUTO:
            return AUTO
        number = int(raw) if isinstance(raw, str) and _NUMBER.fullmatch(raw) else raw
        if isinstance(number, bool) or not isinstance(number, int) or not self.least <= number <= self.most:
            raise ValueError(f"{quoted(raw)} is not {self._right()}")
        return number

    def _right(self) -> str:
        span = f"of {self.least} or more" if self.most == 2**31 - 1 else f"from {self.least} to {self.most}"
        return f"a whole number {span}" + (' or "auto"' if self.auto else "")

    def write(self, value: object) -> str:
        """See `Kind.write`."""
        return f'"{AUTO}"' if value == AUTO else str(value)


@dataclass(frozen=True, slots=True)
class Seconds:
    """A time: a number of seconds, or text with a unit (`500ms`, `30s`, `2m`, `1h`)."""

    least: float = 0.0
    metavar: str = "SECONDS"

    def read(self, raw: object) -> float:
        """See `Kind.read`."""
        seconds = self._seconds(raw)
        if seconds is None or not math.isfinite(seconds) or not self.least <= seconds <= YEAR:
            span = f"from {self.least:g} s to a year"
            raise ValueError(f"{quoted(raw)} is not a time {span}: write seconds, as in 30 or 0.5, or 500ms, 2m, 1h")
        return seconds

    @staticmethod
    def _seconds(raw: object) -> float | None:
        if isinstance(raw, str):
            match = _DECIMAL.fullmatch(raw)
            return float(match[1]) * _SECONDS[match[2]] if match else None
        if isinstance(raw, int | float) and not isinstance(raw, bool):
            return float(raw) if abs(raw) <= YEAR else None  # the bound first: float() of a huge integer overflows
        return None

    def write(self, value: object) -> str:
        """See `Kind.write`."""
        if not isinstance(value, float):
            raise TypeError(f"a time is a float, not {value!r}")
        return str(int(value)) if value.is_integer() else repr(value)


@dataclass(frozen=True, slots=True)
class Size:
    """A number of bytes, or text with a unit of 1024 (`64k`, `10M`, `1G`)."""

    least: int = 0
    metavar: str = "BYTES"

    def read(self, raw: object) -> int:
        """See `Kind.read`."""
        match = _SIZE.fullmatch(raw) if isinstance(raw, str) else None
        size = int(match[1]) * _BYTES[match[2].lower()] if match else raw
        if isinstance(size, bool) or not isinstance(size, int) or not self.least <= size < 2**63:
            raise ValueError(f"{quoted(raw)} is not a size of {self.least} or more: write bytes, or 64k, 10M, 1G")
        return size

    def write(self, value: object) -> str:
        """See `Kind.write`."""
        return str(value)


@dataclass(frozen=True, slots=True)
class Portion:
    """A whole number, or so many percent of one (`10%`)."""

    metavar: str = "N|N%"

    def read(self, raw: object) -> int | str:
        """See `Kind.read`: an integer, or text that ends with `%`."""
        percent = isinstance(raw, str) and raw.endswith("%")
        text = raw.removesuffix("%").rstrip() if isinstance(raw, str) else ""
        number = int(text) if _NUMBER.fullmatch(text) else raw
        most = 100 if percent else 2**31 - 1
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= most:
            raise ValueError(f"{quoted(raw)} is not a whole number of 0 or more, or a percentage from 0% to 100%")
        return f"{number}%" if percent else number

    def write(self, value: object) -> str:
        """See `Kind.write`."""
        return written(value) if isinstance(value, str) else str(value)


@dataclass(frozen=True, slots=True)
class Percent:
    """A share of a hundred, 0 to 100: a number, or text that may end with `%`."""

    metavar: str = "PERCENT"

    def read(self, raw: object) -> float:
        """See `Kind.read`."""
        match = _PERCENT.fullmatch(raw) if isinstance(raw, str) else None
        number = float(match[1]) if match else raw
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= 100:
            raise ValueError(f"{quoted(raw)} is not a percentage from 0 to 100: write it as in 1 or 0.5")
        return float(number)

    def write(self, value: object) -> str:
        """See `Kind.write`."""
        if not isinstance(value, float):
            raise TypeError(f"a percentage is a float, not {value!r}")
        return str(int(value)) if value.is_integer() else repr(value)


@dataclass(frozen=True, slots=True)
class Umask:
    """Permissions that new files do not get, in octal digits; empty: those of the process that starts the daemon."""

    metavar: str = "OCTAL"

    def read(self, raw: object) -> str:
        """See `Kind.read`: three octal digits, or none."""
        if raw == "":
            return ""
        # Not an integer of TOML: 27 and 0o27 would be two numbers, and one of them a surprise.
        if not isinstance(raw, str) or not _OCTAL.fullmatch(raw):
            raise ValueError(f'{quoted(raw)} is not a umask: write octal digits as text, as in "027"')
        return f"{int(raw, 8):03o}"

    def write(self, value: object) -> str:
        """See `Kind.write`."""
        return written(str(value))


@dataclass(frozen=True, slots=True)
class Flag:
    """On or off."""

    metavar: str = ""

    def read(self, raw: object) -> bool:
        """See `Kind.read`."""
        if isinstance(raw, bool):
            return raw
        if isinstance(raw, str) and raw.lower() in _YES + _NO:
            return raw.lower() in _YES
        raise ValueError(f"{quoted(raw)} is neither true nor false")

    def write(self, value: object) -> str:
        """See `Kind.write`."""
        return "true" if value else "false"


@dataclass(frozen=True, slots=True)
class Choice:
    """One word of a few."""

    words: tuple[str, ...]

    @property
    def metavar(self) -> str:
        """See `Kind.metavar`."""
        return "|".join(self.words)

    def read(self, raw: object) -> str:
        """See `Kind.read`."""
        if isinstance(raw, str) and raw in self.words:
            return raw
        raise ValueError(f"{quoted(raw)} is not one of {', '.join(self.words)}")

    def write(self, value: object) -> str:
        """See `Kind.write`."""
        return written(str(value))


@dataclass(frozen=True, slots=True)
class StreamChoice(Choice):
    """Which streams are told at once of a drain; also what was on or off once: `true` is "all", `false` is "late"."""

    words: tuple[str, ...] = (AUTO, "all", "late")
    alone: str = "all"
    """What its name without a word means on the command line."""

    def read(self, raw: object) -> str:
        """See `Kind.read`."""
        if isinstance(raw, bool):
            return "all" if raw else "late"
        if isinstance(raw, str) and raw.lower() in _YES + _NO:
            return "all" if raw.lower() in _YES else "late"
        try:
            return Choice.read(self, raw)
        except ValueError as exc:
            raise ValueError(f"{exc} (on the command line it means {self.alone} without a word, behind APP)") from None


@dataclass(frozen=True, slots=True)
class Text:
    """One line of text."""

    metavar: str = "TEXT"

    def read(self, raw: object) -> str:
        """See `Kind.read`."""
        if not isinstance(raw, str):
            raise ValueError(f"{quoted(raw)} is not text: put it in quotes")  # noqa: TRY004 - one error for all kinds
        if any(unicodedata.category(character) in ("Cc", "Cs") for character in raw):
            raise ValueError(f"{quoted(raw)} holds a control character or a byte that is not UTF-8")
        return raw

    def write(self, value: object) -> str:
        """See `Kind.write`."""
        return written(str(value))


@dataclass(frozen=True, slots=True)
class Texts:
    """Several lines of text; text of the environment has commas between them."""

    metavar: str = "TEXT"

    def read(self, raw: object) -> tuple[str, ...]:
        """See `Kind.read`."""
        texts = [part.strip() for part in raw.split(",")] if isinstance(raw, str) else raw
        if not isinstance(texts, Sequence) or not all(texts):
            raise ValueError(f"{quoted(raw)} is not a list of texts, none of them empty")
        return tuple(Text().read(text) for text in texts)

    def write(self, value: object) -> str:
        """See `Kind.write`."""
        if not isinstance(value, tuple):
            raise TypeError(f"texts are a tuple, not {value!r}")
        return f"[{', '.join(written(one) for one in value)}]"


@dataclass(frozen=True, slots=True)
class ServerField:
    """The value of `Server` in responses (RFC 9110 section 10.2.4), empty: there is none; it is written "off"."""

    metavar: str = "TEXT|off"

    def read(self, raw: object) -> str:
        """See `Kind.read`."""
        if raw is False or (isinstance(raw, str) and raw.lower() == "off"):
            return ""
        if isinstance(raw, str) and _FIELD_VALUE.fullmatch(raw):
            return raw
        raise ValueError(
            f'{quoted(raw)} is not a header value: write printable ASCII without blanks at its ends, or "off" for none'
        )

    def write(self, value: object) -> str:
        """See `Kind.write`."""
        return written(str(value) or "off")


@dataclass(frozen=True, slots=True)
class LogFormat(Text):
    """The format of an access log: text with atoms that are known."""

    metavar: str = "FORMAT"

    def read(self, raw: object) -> str:
        """See `Kind.read`."""
        from preforkd.workers.http.access_log_format import compile_format  # only if one is given

        text = Text.read(self, raw)
        compile_format(text)
        return text


@dataclass(frozen=True, slots=True)
class UrlPath:
    """A path of a URL without a query, or nothing."""

    metavar: str = "PATH"

    def read(self, raw: object) -> str:
        """See `Kind.read`."""
        if isinstance(raw, str) and _URL_PATH.fullmatch(raw):
            return raw
        raise ValueError(f'{quoted(raw)} is not a path: begin it with a slash, as in "/healthz", without a query')

    def write(self, value: object) -> str:
        """See `Kind.write`."""
        return written(str(value))


@dataclass(frozen=True, slots=True)
class UrlPaths:
    """Paths of URLs without a query; text of the environment has commas between them."""

    metavar: str = "PATH"

    def read(self, raw: object) -> tuple[str, ...]:
        """See `Kind.read`."""
        texts = [part.strip() for part in raw.split(",")] if isinstance(raw, str) else raw
        if not isinstance(texts, Sequence):
            raise ValueError(f'{quoted(raw)} is not a path: write text, as in "/healthz", or a list of it')  # noqa: TRY004 - one error for all kinds
        paths = tuple(UrlPath().read(text) for text in texts)
        if "" in paths:
            raise ValueError('"" is not a path: begin it with a slash, as in "/healthz"')
        return paths

    def write(self, value: object) -> str:
        """See `Kind.write`."""
        if not isinstance(value, tuple):
            raise TypeError(f"paths are a tuple, not {value!r}")
        return f"[{', '.join(written(one) for one in value)}]"


@dataclass(frozen=True, slots=True)
class Addresses:
    """Addresses, each once; text of the environment has commas between them.

    Attributes:
        least: how many there have to be.
        kinds: the forms that they may have.
    """

    least: int = 1
    kinds: tuple[type, ...] = ()
    metavar: str = "ADDRESS"
    speak_tls: ClassVar[bool] = False

    def read(self, raw: object) -> tuple[address.Address, ...]:
        """See `Kind.read`."""
        texts = [part.strip() for part in raw.split(",") if raw or self.least] if isinstance(raw, str) else raw
        if not isinstance(texts, Sequence):
            raise ValueError(f'{quoted(raw)} is not an address: write text, as in "127.0.0.1:8000", or a list of it')  # noqa: TRY004 - one error for all kinds
        addresses = [self._address(text) for text in texts]
        if len(addresses) < self.least:
            raise ValueError("an empty list: give at least one address")
        for number, one in enumerate(addresses):
            if self.kinds and not isinstance(one, self.kinds):
                raise ValueError(f'"{one}" cannot be sent to: write HOST:PORT or unix:PATH')
            if one.tls is not None and not self.speak_tls:
                raise ValueError(f'"{one}": only --bind speaks TLS: write the address without "tls:"')
            if one in addresses[:number]:
                raise ValueError(f'"{one}" is given twice')
        return tuple(addresses)

    @staticmethod
    def _address(text: object) -> address.Address:
        if not isinstance(text, str):
            raise ValueError(f'{quoted(text)} is not an address: write text, as in "127.0.0.1:8000"')  # noqa: TRY004 - one error for all kinds
        return address.parse(text)

    def write(self, value: object) -> str:
        """See `Kind.write`."""
        if not isinstance(value, tuple):
            raise TypeError(f"addresses are a tuple, not {value!r}")
        return f"[{', '.join(written(str(one)) for one in value)}]"


@dataclass(frozen=True, slots=True)
class Networks:
    """Whom to believe: addresses, networks in CIDR notation, `unix:`, `*`; text has commas between them."""

    metavar: str = "ADDRESS,..."

    def read(self, raw: object) -> tuple[str, ...]:
        """See `Kind.read`: texts that `forwarded.Networks` takes."""
        from preforkd.workers.forwarded import EVERYBODY, UNIX, network_of  # only if one is given

        texts = raw.split(",") if isinstance(raw, str) else raw
        if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
            raise ValueError(f'{quoted(raw)} is no list of addresses: write text, as in "10.0.0.0/8,unix:"')
        found = tuple(dict.fromkeys(text.strip() for text in texts if text.strip()))
        for text in found:
            if text not in (UNIX, EVERYBODY):
                network_of(text)
        return found

    def write(self, value: object) -> str:
        """See `Kind.write`."""
        if not isinstance(value, tuple):
            raise TypeError(f"networks are a tuple, not {value!r}")
        return f"[{', '.join(written(str(one)) for one in value)}]"


@dataclass(frozen=True, slots=True)
class FieldName:
    """The name of a field of HTTP (RFC 9110 section 5.1), empty: there is none; it is written "off"."""

    metavar: str = "NAME|off"

    def read(self, raw: object) -> str:
        """See `Kind.read`."""
        if raw is False or (isinstance(raw, str) and raw.lower() == "off"):
            return ""
        if isinstance(raw, str) and _FIELD_NAME.fullmatch(raw) and raw.lower() not in _TAKEN_NAMES:
            return raw
        raise ValueError(
            f"{quoted(raw)} is not a name for a header of its own: write letters, digits and hyphens, as in "
            '"X-Request-ID", or "off" for none'
        )

    def write(self, value: object) -> str:
        """See `Kind.write`."""
        return written(str(value) or "off")


def written(text: str) -> str:
    """Text as a TOML basic string (JSON's escapes are TOML's, but for DEL, which `Text` refuses)."""
    return json.dumps(text, ensure_ascii=False)
