"""The access log: one line per finished exchange, one write per loop iteration.

This file alone decides what an access line may contain and how it reaches its file.

1. A format is compiled once, to one Python function made of the statements its atoms need.
   Statements come from the closed tables below; nothing the operator wrote becomes code:
   literals enter by ``repr``, header names and conversions as constants of the function.
2. What a peer can choose (method, target, header values, user name) passes through JSON's
   ASCII string encoder, one C call that tests and escapes at once. So neither a line break
   nor a terminal escape (CVE-2020-7694) can reach a log, a quote cannot end its field, and a
   format written by hand as a JSON object stays valid JSON.
3. What repeats is kept: status texts, client addresses (a bounded table), the time text of
   the current second.
4. Lines gather in a list. The first one asks the loop for a flush at the end of the
   iteration; past 64 KiB the flush happens at once.
5. The log never breaks a response: a line that cannot be made or written is counted in
   ``lost`` and the first of them is reported to the logger ``omnicorn``.

Atoms are gunicorn's, with hypercorn's additions and granian's and uvicorn's names as aliases;
``ATOMS`` is the list.
"""

from __future__ import annotations

import logging
import os
import re
import time
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from omnicorn.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import TextIO

__all__ = [
    "ATOMS",
    "DEFAULT_FORMAT",
    "PRESETS",
    "AccessLog",
    "AccessLogger",
    "CompiledFormat",
    "Exchange",
    "compile_format",
    "stream_writer",
]

DEFAULT_FORMAT: Final = (
    '%(levelprefix)s %(client_addr)s - "%(request_line)s" %(status_code)s'  # uvicorn's own
)

PRESETS: Final[Mapping[str, str]] = {
    "default": DEFAULT_FORMAT,
    "uvicorn": '%(client_addr)s - "%(request_line)s" %(status_code)s',
    "common": '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s',
    "combined": '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"',
    "json": "json",
}
"""Formats that have a name. ``json`` is not a ``%`` format: it writes one object per line."""

_FLUSH_AT: Final = 65536  # characters waiting
_OPTION: Final = "access_log_format"
_errors = logging.getLogger("omnicorn")


class Exchange(Protocol):
    """What the server hands over when an exchange is finished.

    Only the attributes in the format's ``needs`` are ever read, so that the others may be
    missing, stale or costly.
    """

    @property
    def scope(self) -> Mapping[str, Any]:
        """The ASGI scope: client, method, path, raw_path, query_string, http_version, headers."""

    @property
    def status(self) -> int:
        """The status sent; 0 if the exchange ended before there was one."""

    @property
    def response_headers(self) -> Sequence[tuple[bytes, bytes]]:
        """The response fields, names in lower case."""

    @property
    def sent(self) -> int:
        """Bytes of body sent, without framing."""

    @property
    def duration(self) -> float:
        """Seconds from the request's head to the end of the response."""


class CompiledFormat(NamedTuple):
    """A format ready to use."""

    line: Callable[[Exchange], str]
    """Makes the text of one line."""
    needs: frozenset[str]
    """Names of the ``Exchange`` attributes that ``line`` reads."""


# ------------------------------------------------------------------ what formatting looks up


class _Memo(dict[str, str]):
    """A bounded table from text to text; full, it starts anew."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[[str], str]) -> None:
        self._make = make

    def __missing__(self, key: str) -> str:
        text = self._make(key)
        if len(key) <= 64:
            if len(self) >= 1024:
                self.clear()
            self[key] = text
        return text


class _StatusTexts(dict[int, str]):
    """Status to text, made on first use; statuses are few (the peer does not choose them)."""

    __slots__ = ("_colors", "_phrases", "_show")

    def __init__(self, show: str, colors: bool) -> None:
        from http import HTTPStatus  # here: an enumeration costs a millisecond to build

        self._phrases = {int(status): status.phrase for status in HTTPStatus}
        self._show = show
        self._colors = colors

    def __missing__(self, status: int) -> str:
        phrase = self._phrases.get(status, "")
        text = self._show.format(status=status, phrase=phrase).rstrip() or "-"
        if self._colors:
            text = f"\x1b[{_STATUS_COLORS.get(status // 100, 0)}m{text}\x1b[0m"
        if len(self) < 1024:
            self[status] = text
        return text


_STATUS_COLORS: Final = {1: 97, 2: 32, 3: 33, 4: 31, 5: 91}  # white green yellow red, as uvicorn


def _safe(text: str) -> str:
    return encode_basestring_ascii(text)[1:-1]


def _authority(host: str) -> str:
    """The host as it stands before a port: an IPv6 address in brackets."""
    return f"[{_safe(host)}]" if ":" in host else _safe(host)


def _raw_path(scope: Mapping[str, Any]) -> bytes:
    """The path as it was on the wire, rebuilt where a gateway did not pass it on."""
    from urllib.parse import quote

    return quote(scope["path"], safe="/:@!$&'()*+,;=~", errors="replace").encode()


def _method(scope: Mapping[str, Any]) -> str:
    """A WebSocket scope names no method: its handshake is a GET, or RFC 8441's CONNECT."""
    return "GET" if scope["http_version"] == "1.1" else "CONNECT"


def _joined(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Fields by name; lines of one name joined in order (RFC 9110 §5.3)."""
    fields: dict[bytes, bytes] = {}
    for name, value in headers:
        before = fields.get(name)
        fields[name] = value if before is None else before + b", " + value
    return fields


def _user(authorization: str) -> str:
    """The user name of Basic credentials (RFC 7617), never the password."""
    from binascii import a2b_base64

    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "basic":
        return "-"
    try:
        name, colon, _ = a2b_base64(token.strip()).partition(b":")
    except ValueError:
        return "-"
    return name.decode("utf-8", "backslashreplace") if colon and name else "-"


_MONTHS: Final = "JanFebMarAprMayJunJulAugSepOctNovDec"


def _clf_time(second: int) -> str:
    # strftime("%b") would follow the application's locale; log parsers do not.
    now = time.localtime(second)
    return time.strftime(f"[%d/{_MONTHS[now.tm_mon * 3 - 3 : now.tm_mon * 3]}/%Y:%H:%M:%S %z]", now)


def _plain_time(second: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(second))


def _json_time(second: int) -> str:
    return time.strftime('"%Y-%m-%dT%H:%M:%SZ"', time.gmtime(second))


# --------------------------------------------------------------------------------- the tables

# Part -> (parts it builds on, statements). `x` is the exchange; every other name is set by a
# part or is a constant of _Builder. The order here is the order in the function.
_PARTS: Final[dict[str, tuple[str, str]]] = {
    "scope": ("", "scope = x.scope"),
    "client": ("scope", "client = scope.get('client')"),
    "client_host": ("client", "client_host = client[0] if client else '-'"),
    "host": ("client", "host = hosts[client[0]] if client else '-'"),
    # !a: the port is a number unless the application replaced it with something else.
    "address": ("client", "address = f'{authorities[client[0]]}:{client[1]!a}' if client else '-'"),
    "method": ("scope", "method = scope.get('method') or method_of(scope)"),
    "raw": ("scope", "raw = scope.get('raw_path') or raw_path(scope)"),
    "query": ("scope", "query = scope['query_string']"),
    "target": (
        "raw query",
        "target = (raw + b'?' + query if query else raw).decode('latin-1')",
    ),
    "protocol": ("scope", "protocol = 'HTTP/' + scope['http_version']"),
    "line": ("method target scope", "line = f\"{method} {target} HTTP/{scope['http_version']}\""),
    "path": ("scope", "path = scope['path']"),
    "path_query": (
        "scope query",
        "path_query = scope['path'] + ('?' + query.decode('latin-1') if query else '')",
    ),
    "query_text": ("query", "query_text = query.decode('latin-1')"),
    "scheme": ("scope", "scheme = scope.get('scheme', 'http')"),
    "fields": (
        "scope",
        "headers = scope['headers']\n"
        "fields = dict(headers)\n"
        "if len(fields) != len(headers): fields = joined(headers)",
    ),
    "response_fields": (
        "",
        "headers = x.response_headers\n"
        "response_fields = dict(headers)\n"
        "if len(response_fields) != len(headers): response_fields = joined(headers)",
    ),
    "user": (
        "fields",
        "user = fields.get(b'authorization')\n"
        "user = '-' if user is None else user_of(user.decode('latin-1'))",
    ),
    "status": ("", "status = x.status"),
    "status_text": ("", "status_text = statuses[x.status]"),
    "phrase": ("", "phrase = phrases[x.status]"),
    "status_line": ("", "status_line = status_lines[x.status]"),
    "sent": ("", "sent = x.sent"),
    "sent_or_dash": ("sent", "sent_or_dash = sent or '-'"),
    "duration": ("", "duration = x.duration"),
    "seconds": ("duration", "seconds = int(duration)"),
    "milliseconds": ("duration", "milliseconds = int(duration * 1e3)"),
    "microseconds": ("duration", "microseconds = int(duration * 1e6)"),
    "decimal": ("duration", "decimal = f'{duration:.6f}'"),
    "dt_ms": ("duration", "dt_ms = duration * 1e3"),
    "second": ("", "second = int(clock())"),
    "clf": (
        "second",
        "if second != clf_kept[0]: clf_kept[:] = second, clf_time(second)\nclf = clf_kept[1]",
    ),
    "plain": (
        "second",
        "if second != plain_kept[0]: plain_kept[:] = second, plain_time(second)\n"
        "plain = plain_kept[1]",
    ),
    "iso": (
        "second",
        "if second != iso_kept[0]: iso_kept[:] = second, json_time(second)\niso = iso_kept[1]",
    ),
    "pid": ("", "pid = f'<{getpid()}>'"),  # asked each time: workers fork after the compilation
}

# Kinds: "safe" text, "peer" text (to be escaped), "int", "float"; they decide the conversions.
_ATOMS: Final[dict[str, tuple[str, str]]] = {
    "h": ("host", "safe"),
    "u": ("user", "peer"),
    "t": ("clf", "safe"),
    "r": ("line", "peer"),
    "m": ("method", "peer"),
    "U": ("path", "peer"),
    "Uq": ("path_query", "peer"),
    "q": ("query_text", "peer"),
    "H": ("protocol", "peer"),
    "S": ("scheme", "peer"),
    "s": ("status", "int"),
    "st": ("phrase", "safe"),
    "B": ("sent", "int"),
    "b": ("sent_or_dash", "safe"),
    "T": ("seconds", "int"),
    "M": ("milliseconds", "int"),
    "D": ("microseconds", "int"),
    "L": ("decimal", "safe"),
    "p": ("pid", "safe"),
    "dt_ms": ("dt_ms", "float"),
    "time": ("plain", "safe"),
    "client_addr": ("address", "safe"),
    "status_code": ("status_line", "safe"),
}

_ALIASES: Final = {
    "R": "r",  # hypercorn
    "addr": "h",  # granian
    "method": "m",
    "path": "U",
    "query_string": "q",
    "protocol": "H",
    "scheme": "S",
    "status": "s",
    "request_line": "r",  # uvicorn
    "f": "{referer}i",
    "a": "{user-agent}i",
}

ATOMS: Final = frozenset({*_ATOMS, *_ALIASES, "l", "levelprefix", "{name}i", "{name}o", "{name}e"})
"""Every atom a format may use, written ``%(atom)s``.

``h`` client host · ``client_addr`` host:port · ``l`` a dash · ``u`` Basic user · ``t`` and
``time`` date · ``r`` request line · ``m`` method · ``U`` path · ``Uq`` path and query · ``q``
query · ``H`` protocol · ``S`` scheme · ``s`` status · ``st`` its phrase · ``status_code`` both ·
``b`` body bytes or dash · ``B`` body bytes · ``f`` Referer · ``a`` User-Agent · ``T`` seconds ·
``M`` milliseconds · ``D`` microseconds · ``L`` seconds with six decimals · ``dt_ms``
milliseconds as a float · ``p`` process id · ``levelprefix`` the word INFO · ``{name}i`` request
field (also ``header{name}``) · ``{name}o`` response field · ``{name}e`` environment variable,
read when the format is compiled. A missing value is a dash.
"""

_JSON: Final = (
    ("time", "iso", "safe"),
    ("client", "client_host", "peer"),
    ("method", "method", "peer"),
    ("path", "path", "peer"),
    ("query", "query_text", "peer"),
    ("protocol", "protocol", "peer"),
    ("scheme", "scheme", "peer"),
    ("status", "status", "safe"),
    ("bytes", "sent", "safe"),
    ("duration", "decimal", "safe"),
    ("referer", "{referer}i", "peer"),
    ("user_agent", "{user-agent}i", "peer"),
)

_TOKEN: Final = re.compile(
    r"%(?:(?P<percent>%)"
    r"|\((?P<name>[^()]*)\)(?P<spec>[-+ #0]*[0-9]{0,3}(?:\.[0-9]{1,3})?)(?P<type>[a-zA-Z])"
    r"|(?P<wrong>.{0,12}))",
    re.DOTALL,
)
_FIELD: Final = re.compile(r"(?:header)?\{([!#$%&'*+.^_`|~0-9A-Za-z-]+)\}([ioe]?)")
_CONVERSIONS: Final = {"peer": "s", "safe": "s", "int": "sdi", "float": "sdifg"}


# ------------------------------------------------------------------------------- the compiler


def compile_format(
    format: str, *, clock: Callable[[], float] = time.time, colors: bool = False, end: str = ""
) -> CompiledFormat:
    """Compile a format, or the preset of that name, to one function.

    Args:
        format: A key of ``PRESETS``, or text with atoms such as ``%(h)s``; ``%%`` is a percent
            sign. Conversions and widths are Python's: ``%(dt_ms).3f``, ``%(m)-7s``.
        clock: Seconds since the epoch, asked once a line by formats that print a date.
        colors: Colour the status by its class and the level prefix, for a terminal.
        end: Appended to every line.

    Raises:
        ConfigError: An atom or a conversion is not known; the message names the nearest.
    """
    builder = _Builder(clock, colors)
    if format == "json":
        builder.json()
    else:
        builder.text(PRESETS.get(format, format))
    builder.literal(end)
    return builder.finish()


class _Builder:
    """Gathers the parts a format uses and the pieces of its line, then makes the function."""

    def __init__(self, clock: Callable[[], float], colors: bool) -> None:
        self._colors = colors
        self._used: set[str] = set()
        self._later: list[str] = []  # statements after the parts: header values, conversions
        self._pieces: list[tuple[str, str]] = []  # ("", literal) or (how to show it, variable)
        self._constants: dict[str, Any] = {
            "__builtins__": {"dict": dict, "len": len, "int": int},
            "authorities": _Memo(_authority),
            "clf_kept": [None, ""],
            "clf_time": _clf_time,
            "clock": clock,
            "getpid": os.getpid,
            "hosts": _Memo(_safe),
            "iso_kept": [None, ""],
            "joined": _joined,
            "json_time": _json_time,
            "method_of": _method,
            "plain_kept": [None, ""],
            "plain_time": _plain_time,
            "quoted": encode_basestring_ascii,
            "raw_path": _raw_path,
            "user_of": _user,
        }

    # -- formats

    def text(self, format: str) -> None:
        position = atoms = 0
        for token in _TOKEN.finditer(format):
            self.literal(format[position : token.start()])
            position = token.end()
            if token["percent"]:
                self.literal("%")
            elif token["name"] is not None:
                self._atom(token["name"], token["spec"], token["type"])
                atoms += 1
            else:
                raise ConfigError(
                    f"access log format: {'%' + token['wrong']!r} does not begin an atom; "
                    "write %(name)s, or %% for a percent sign",
                    option=_OPTION,
                )
        self.literal(format[position:])
        if not atoms:
            raise ConfigError(
                f"access log format {format!r} holds no atom; write atoms such as %(h)s, or one "
                f"of the names {', '.join(PRESETS)}",
                option=_OPTION,
            )

    def json(self) -> None:
        before = "{"
        for key, source, kind in _JSON:
            self.literal(f'{before}"{key}": ')
            before = ", "
            variable = self._field(source[1:-2], "i") if source[0] == "{" else self._part(source)
            if kind == "peer":
                variable = self._assign(f"'null' if {variable} == '-' else quoted({variable})")
            self._pieces.append(("{%s}", variable))
        self.literal("}")

    # -- pieces

    def literal(self, text: str) -> None:
        if not text:
            return
        if self._pieces and not self._pieces[-1][0]:
            text = self._pieces.pop()[1] + text
        self._pieces.append(("", text))

    def _atom(self, name: str, spec: str, type: str) -> None:
        canonical = _ALIASES.get(name, name)
        field = _FIELD.fullmatch(canonical)
        if field and bool(field[2]) == canonical.startswith("header"):
            field = None  # a bare {name}, or header{name}i
        fixed = self._fixed(canonical, field)
        if fixed is not None:
            kind = "safe"
        elif field:
            kind = "peer"
        elif canonical in _ATOMS:
            part, kind = _ATOMS[canonical]
            if part == "status" and self._colors and not spec and type == "s":
                part, kind = "status_text", "safe"
        else:
            raise _unknown(name)
        if type not in _CONVERSIONS[kind]:
            raise ConfigError(
                f"access log format: %({name}){spec}{type} cannot be: use "
                + " or ".join(f"%({name}){letter}" for letter in _CONVERSIONS[kind]),
                option=_OPTION,
            )
        if fixed is not None:
            self.literal(f"%{spec}s" % fixed)
            return
        variable = self._field(field[1], field[2] or "i") if field else self._part(part)
        if spec or (type != "s" and kind != "int"):
            # Before the escaping: a cut after it could leave the backslash of an escaped quote,
            # and that would swallow the quote which closes the field.
            conversion = self._constant(f"%{spec}{type}")
            variable = self._assign(f"{conversion} % ({variable},)")
        self._pieces.append(("{quoted(%s)[1:-1]}" if kind == "peer" else "{%s}", variable))

    def _fixed(self, name: str, field: re.Match[str] | None) -> str | None:
        """The text of an atom that is known now."""
        if name == "l":
            return "-"
        if name == "levelprefix":
            return "\x1b[32mINFO\x1b[0m:    " if self._colors else "INFO:    "
        if field and field[2] == "e":
            return _safe(os.environ.get(field[1], "-"))
        return None

    def _part(self, name: str) -> str:
        self._used.add(name)
        for part in _PARTS[name][0].split():
            self._part(part)
        for table, show in _STATUS_TABLES.items():
            if table in _PARTS[name][1] and table not in self._constants:
                self._constants[table] = _StatusTexts(show, self._colors)
        return name

    def _field(self, name: str, where: str) -> str:
        fields = self._part("fields" if where == "i" else "response_fields")
        key = self._constant(name.lower().encode())
        value = self._assign(f"{fields}.get({key})")
        return self._assign(f"'-' if {value} is None else {value}.decode('latin-1')")

    def _assign(self, expression: str) -> str:
        variable = f"v{len(self._later)}"
        self._later.append(f"{variable} = {expression}")
        return variable

    def _constant(self, value: object) -> str:
        name = f"k{len(self._constants)}"
        self._constants[name] = value
        return name

    # -- the function

    def finish(self) -> CompiledFormat:
        pieces = self._unquoted()
        shown = [how % what if how else "" for how, what in pieces]
        body = [
            line for part in _PARTS if part in self._used for line in _PARTS[part][1].split("\n")
        ]
        body += self._later
        needs = frozenset(re.findall(r"\bx\.(\w+)", "\n".join(body)))
        line = " ".join(
            f'f"{expression}"' if expression else repr(text)
            for expression, (_, text) in zip(shown, pieces, strict=True)
        )
        source = "\n    ".join(["def line(x):", *body, f"return {line}"])
        exec(compile(source, "<access log format>", "exec"), self._constants)
        return CompiledFormat(self._constants["line"], needs)

    def _unquoted(self) -> list[tuple[str, str]]:
        """Let the encoder's own quotes stand for a pair of quotes around a peer's value.

        That saves the slice that would take them off: ``"%(r)s"`` is the usual case.
        """
        pieces = list(self._pieces)
        for index in range(1, len(pieces) - 1):
            (left, before), (how, variable), (right, after) = pieces[index - 1 : index + 2]
            if (
                how.startswith("{quoted")
                and not left
                and not right
                and before.endswith('"')
                and after.startswith('"')
            ):
                pieces[index - 1] = ("", before[:-1])
                pieces[index] = ("{quoted(%s)}", variable)
                pieces[index + 1] = ("", after[1:])
        return pieces


_STATUS_TABLES: Final = {
    "statuses": "{status}",
    "phrases": "{phrase}",
    "status_lines": "{status} {phrase}",
}


def _unknown(name: str) -> ConfigError:
    from difflib import get_close_matches

    nearest = get_close_matches(name, sorted(ATOMS), n=1, cutoff=0.0)[0]
    return ConfigError(
        f"access log format: there is no atom %({name})s; the nearest is %({nearest})s "
        f"(known: {' '.join(sorted(ATOMS, key=str.lower))})",
        option=_OPTION,
    )


# ------------------------------------------------------------------------------------ writing


class _Log:
    """What both logs share: the compiled format, and losing lines without harm."""

    __slots__ = ("_line", "_reported", "lost", "needs")

    def __init__(self, compiled: CompiledFormat) -> None:
        self._line, self.needs = compiled
        self._reported = False
        self.lost = 0

    def _lose(self, lines: int, error: Exception) -> None:
        self.lost += lines
        if not self._reported:
            self._reported = True
            _errors.error(
                "Access log: a line could not be made or written (%s: %s). "
                "Such lines are lost; this is reported once.",
                type(error).__name__,
                error,
            )


class AccessLog(_Log):
    """Formats finished exchanges and writes their lines together.

    Args:
        format: As for `compile_format`; each line ends in a newline.
        write: Takes whole lines, one or many. What it raises (disk full, closed pipe, closed
            file) loses those lines and nothing else.
        call_soon: Arranges one call at the end of the loop's current iteration.
        clock: Seconds since the epoch.
        colors: For a terminal.

    Attributes:
        needs: Names of the `Exchange` attributes the format reads.
        lost: Lines that could not be made or written.
    """

    __slots__ = ("_call_soon", "_lines", "_size", "_write")

    def __init__(
        self,
        format: str,
        write: Callable[[str], object],
        call_soon: Callable[[Callable[[], object]], object],
        *,
        clock: Callable[[], float] = time.time,
        colors: bool = False,
    ) -> None:
        super().__init__(compile_format(format, clock=clock, colors=colors, end="\n"))
        self._write = write
        self._call_soon = call_soon
        self._lines: list[str] = []
        self._size = 0

    def log(self, exchange: Exchange) -> None:
        """Add the line of one finished exchange; never raises."""
        try:
            line = self._line(exchange)
        except Exception as error:  # the application may have left anything in the scope
            self._lose(1, error)
            return
        lines = self._lines
        if not lines:
            self._call_soon(self.flush)
        lines.append(line)
        self._size += len(line)
        if self._size > _FLUSH_AT:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting, now; to be called once more at shutdown. Never raises."""
        lines = self._lines
        if not lines:
            return
        self._lines = []
        self._size = 0
        try:
            self._write("".join(lines))
        except Exception as error:
            self._lose(len(lines), error)


class AccessLogger(_Log):
    """The same for an operator who configured the logger ``omnicorn.access``.

    One record of level INFO per exchange; its message is the line without the level prefix,
    because prefixes are the business of the operator's formatter.

    Args:
        format: As for `compile_format`.
        logger: The configured logger.
        clock: Seconds since the epoch.

    Attributes:
        needs: Names of the `Exchange` attributes the format reads.
        lost: Lines that could not be made or logged.
    """

    __slots__ = ("_logger",)

    def __init__(
        self, format: str, logger: logging.Logger, *, clock: Callable[[], float] = time.time
    ) -> None:
        text = PRESETS.get(format, format).removeprefix("%(levelprefix)s").lstrip(" ")
        super().__init__(compile_format(text, clock=clock))
        self._logger = logger

    def log(self, exchange: Exchange) -> None:
        """Log one finished exchange; never raises."""
        try:
            if self._logger.isEnabledFor(logging.INFO):
                self._logger.info(self._line(exchange))
        except Exception as error:
            self._lose(1, error)

    def flush(self) -> None:
        """Nothing waits here: each record was handed to logging at once."""


def stream_writer(stream: TextIO) -> Callable[[str], object]:
    """A ``write`` for `AccessLog` that puts whole lines on a stream at once.

    A stream with a file descriptor is written by one system call per batch, so that lines of
    several workers on one file do not run into each other; any other stream is written and
    flushed.
    """
    try:
        descriptor = stream.fileno()
    except (AttributeError, OSError, ValueError):

        def write(text: str) -> None:
            stream.write(text)
            stream.flush()

        return write

    def write_descriptor(text: str) -> None:
        if stream.closed:  # its descriptor may be another file by now
            raise ValueError("the stream is closed")
        data = text.encode("utf-8", "backslashreplace")
        while data:
            data = data[os.write(descriptor, data) :]

    return write_descriptor
