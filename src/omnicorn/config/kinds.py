"""What a value may be: reading it from text, checking it, writing it back.

Each `Kind` has three operations and one sentence:

- ``parse(text)`` reads what a flag, a variable or a TOML string says;
- ``check(value)`` judges a typed value, whoever made it, and returns it normalised
  (lists become tuples, ints become floats where seconds are meant);
- ``show(value)`` writes TOML that ``parse`` or ``check`` would accept again;
- ``accepts`` completes "expected ...".

Both refuse by ``ValueError``; its text adds what ``accepts`` cannot say, or is empty.
Naming the option and its source is the business of `options.Option`. `None` is not a
kind: an option whose default is None may also be None.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from omnicorn.config.bind import MAX_PORT, check_host, parse_bind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Kind:
    """A set of values; see the module for its operations."""

    __slots__ = ("accepts", "metavar")
    #: Whether a flag may be given several times, each adding one item.
    repeatable = False
    #: Whether its values are shown to nobody.
    secret = False
    #: Whether no text can say it: then there is neither flag nor variable.
    program_only = False

    def __init__(self, accepts: str, metavar: str) -> None:
        self.accepts = accepts
        self.metavar = metavar

    def parse(self, text: str) -> object:
        raise NotImplementedError

    def check(self, value: object) -> object:
        raise NotImplementedError

    def show(self, value: object) -> str:
        return str(value)


class Text(Kind):
    """Text that is not empty and holds no NUL, under one further rule.

    Args:
        rule: Returns the text normalised, or raises ValueError.
    """

    __slots__ = ("rule",)

    def __init__(
        self, accepts: str, metavar: str, rule: Callable[[str], str] | None = None
    ) -> None:
        super().__init__(accepts, metavar)
        self.rule = rule if rule is not None else _not_empty

    def parse(self, text: str) -> str:
        return text

    def check(self, value: object) -> str:
        if not isinstance(value, str) or "\0" in value:
            raise ValueError("")
        return self.rule(value)

    def show(self, value: object) -> str:
        return quote(str(value))


class Secret(Text):
    """Text that neither a message nor a listing repeats."""

    __slots__ = ()
    secret = True

    def show(self, value: object) -> str:
        return '"***"'


class Switch(Kind):
    """True or false."""

    __slots__ = ()
    _WORDS: ClassVar = {
        "true": True, "yes": True, "on": True, "1": True,
        "false": False, "no": False, "off": False, "0": False,
    }  # fmt: skip

    def __init__(self) -> None:
        super().__init__("true or false (also yes/no, on/off, 1/0)", "")

    def parse(self, text: str) -> bool:
        try:
            return self._WORDS[text.lower()]
        except KeyError:
            raise ValueError("") from None

    def check(self, value: object) -> bool:
        if not isinstance(value, bool):
            raise ValueError("")
        return value

    def show(self, value: object) -> str:
        return "true" if value else "false"


class Choice(Kind):
    """One of a few words; read without regard to case."""

    __slots__ = ("words",)

    def __init__(self, *words: str) -> None:
        super().__init__(f"one of {', '.join(words)}", "|".join(words))
        self.words = words

    def parse(self, text: str) -> str:
        return text

    def check(self, value: object) -> str:
        if not isinstance(value, str) or value.lower() not in self.words:
            raise ValueError("")
        return value.lower()

    def show(self, value: object) -> str:
        return quote(str(value))


class CertReqs(Choice):
    """What is asked of clients: a word, or its name or number in `ssl` (and in uvicorn)."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("none", "optional", "required")
        self.accepts += " (or 0, 1, 2)"

    def parse(self, text: str) -> str:
        return self.words[int(text)] if text in ("0", "1", "2") else text

    def check(self, value: object) -> str:
        # `ssl.CERT_REQUIRED` is an int, too.
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 2:
            value = self.words[value]
        if isinstance(value, str):
            value = value.lower().removeprefix("cert_")
        return super().check(value)


class Integer(Kind):
    """A whole number from `low` to `high`, both included."""

    __slots__ = ("high", "low")

    def __init__(self, low: int, high: int | None = None, metavar: str = "N") -> None:
        limits = f"of {low} or more" if high is None else f"from {low} to {high}"
        super().__init__(f"a whole number {limits}", metavar)
        self.low = low
        self.high = high

    def parse(self, text: str) -> int:
        return _integer(text)

    def check(self, value: object) -> int:
        # A bool is an int to Python and never one to the person who wrote it.
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError("")
        if value < self.low or (self.high is not None and value > self.high):
            raise ValueError("")
        return value


class Size(Integer):
    """A number of bytes; in text, K, M and G (or KiB, MiB, GiB) are powers of 1024."""

    __slots__ = ()
    _UNITS: ClassVar = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}

    def __init__(self, high: int | None = None) -> None:
        super().__init__(1, high, metavar="BYTES")
        limits = "of 1 or more" if high is None else f"from 1 to {high}"
        self.accepts = f"a number of bytes {limits}, such as 65536, 64K or 10M"

    def parse(self, text: str) -> int:
        number = text.lower().removesuffix("ib")
        unit = self._UNITS.get(number[-1:])
        if unit is None:
            return _integer(text)
        return _integer(number[:-1]) * unit


class Seconds(Kind):
    """A time in seconds; in text also with a unit: ms, s, m or h.

    Args:
        off: Whether 0 is a value too, and means: not at all.
    """

    __slots__ = ("_least",)
    _UNITS: ClassVar = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
    # No timer of any loop misbehaves below this, and nobody waits longer than a year.
    _MAX = 366 * 86400.0

    def __init__(self, off: bool = False) -> None:
        range_ = "from 0 (off) up" if off else "above 0 and up"
        super().__init__(
            f"a time {range_} to a year, in seconds or as 500ms, 15s, 2m, 1h", "SECONDS"
        )
        self._least = 0.0 if off else 5e-324

    def parse(self, text: str) -> float:
        number = text.rstrip("abcdefghijklmnopqrstuvwxyz")
        unit = self._UNITS.get(text[len(number) :] or "s")
        if unit is None or not number.isascii() or not number.replace(".", "", 1).isdigit():
            raise ValueError("")
        return float(number) * unit

    def check(self, value: object) -> float:
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise ValueError("")
        # Written so that NaN fails too.
        if not self._least <= value <= self._MAX:
            raise ValueError("")
        return float(value)

    def show(self, value: object) -> str:
        return f"{value:.0f}" if isinstance(value, float) and value.is_integer() else str(value)


class Permissions(Kind):
    """File permission bits; text is octal, as chmod reads it."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__('octal permissions such as "660", or an int such as 0o660', "OCTAL")

    def parse(self, text: str) -> int:
        return _integer(text.removeprefix("0o"), base=8)

    def check(self, value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError("")
        if not 0 <= value <= 0o777:
            raise ValueError(f"as a number, {value} is {value:#o}")
        return value

    def show(self, value: object) -> str:
        return f'"{value:o}"'


class Hsts(Kind):
    """The value of the strict-transport-security field (RFC 6797 §6.1); a number is max-age."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(
            'seconds, or a value such as "max-age=31536000; includeSubDomains; preload"',
            "SECONDS",
        )

    def parse(self, text: str) -> str:
        return text

    def check(self, value: object) -> str:
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str):
            raise ValueError("")
        if value.isascii() and value.isdigit():
            value = f"max-age={value}"
        parts = [part.strip() for part in value.split(";")]
        names = []
        for part in parts:
            name, _, argument = part.lower().partition("=")
            digits = argument.strip('"')
            if name not in ("max-age", "includesubdomains", "preload"):
                raise ValueError(f"{part!r} is none of its directives")
            if (name == "max-age") != (digits.isascii() and digits.isdigit()):
                raise ValueError("max-age has a number of seconds, the others have no value")
            names.append(name)
        # RFC 6797 §6.1: each directive once, and max-age is required.
        if "max-age" not in names or len(set(names)) != len(names):
            raise ValueError("max-age must be there, and each directive once at most")
        return "; ".join(parts)

    def show(self, value: object) -> str:
        return quote(str(value))


class LogConfig(Text):
    """A file for `logging.config`, by its name, or the mapping that such a file holds."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(
            "the path of an .ini, .json, .yaml or .toml file (or, from a program and in TOML, "
            "what logging.config.dictConfig takes)",
            "FILE",
        )

    def check(self, value: object) -> Any:
        return dict(value) if isinstance(value, dict) else super().check(value)

    def show(self, value: object) -> str:
        return _inline(value)


class TLSContext(Kind):
    """An `ssl.SSLContext` of a server."""

    __slots__ = ()
    program_only = True

    def __init__(self) -> None:
        super().__init__("an ssl.SSLContext for servers, from a program", "")

    def parse(self, text: str) -> object:
        raise ValueError("")

    def check(self, value: object) -> object:
        import ssl  # every other server starts without it

        if not isinstance(value, ssl.SSLContext):
            raise ValueError("")
        if value.protocol == ssl.PROTOCOL_TLS_CLIENT:
            raise ValueError("its protocol is PROTOCOL_TLS_CLIENT, PROTOCOL_TLS_SERVER is needed")
        return value


class Several(Kind):
    """A tuple of items, each under one rule.

    Args:
        item: Returns the item normalised, or raises ValueError.
        separator: Between items where they come in one text.
        write: An item as text again.
        repeatable: A flag gives one item, unsplit, and may be given again.
    """

    __slots__ = ("item", "repeatable", "separator", "write")

    def __init__(
        self,
        accepts: str,
        metavar: str,
        item: Callable[[object], object],
        *,
        separator: str = ",",
        write: Callable[[object], str] = str,
        repeatable: bool = False,
    ) -> None:
        super().__init__(accepts, metavar)
        self.item = item
        self.separator = separator
        self.write = write
        self.repeatable = repeatable

    def parse(self, text: str) -> tuple[str, ...]:
        parts = (part.strip() for part in text.split(self.separator))
        return tuple(part for part in parts if part)

    def check(self, value: object) -> tuple[object, ...]:
        items: Iterable[object]
        if isinstance(value, str):
            items = (value,)
        elif isinstance(value, dict):
            items = value.items()
        elif isinstance(value, (list, tuple)):
            items = value
        else:
            raise ValueError("")
        return tuple([self.item(item) for item in items])

    def show(self, value: object) -> str:
        assert isinstance(value, tuple)
        return f"[{', '.join(quote(self.write(item)) for item in value)}]"


def quote(text: str) -> str:
    """Return a TOML basic string."""
    import json

    # JSON's escapes are TOML's, except that TOML also wants DEL escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _inline(value: object) -> str:
    """Return what TOML can hold, in one line."""
    if isinstance(value, dict):
        pairs = (f"{quote(str(key))} = {_inline(item)}" for key, item in value.items())
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_inline, value))}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, (int, float)) else quote(str(value))


def _integer(text: str, base: int = 10) -> int:
    # int() also takes underscores, spaces, a plus and digits of other scripts.
    if not text.isascii() or not text.removeprefix("-").isdigit():
        raise ValueError("")
    try:
        return int(text, base)
    except ValueError:  # An octal with an 8 in it, or more digits than Python reads.
        raise ValueError("") from None


def _not_empty(text: str) -> str:
    if not text:
        raise ValueError("it is empty")
    return text


# Rules of single options ---------------------------------------------------------------


def _address(item: object) -> str:
    if not isinstance(item, str):
        raise ValueError(f"{item!r} is not text")
    parse_bind(item)
    return item


def _plain_address(item: object) -> str:
    text = _address(item)
    if parse_bind(text).scheme != "http":
        raise ValueError(f"{text!r} is never spoken over TLS: it goes to bind")
    return text


def _owner(text: str) -> str:
    user, colon, group = text.partition(":")
    if ":" in group or not (user or group) or (colon and not group) or " " in text:
        raise ValueError("")
    return text


def _root_path(text: str) -> str:
    # A trailing slash would make every path begin with two.
    path = text.rstrip("/")
    if path and not path.startswith("/"):
        raise ValueError(f"write /{path}")
    return path


def _trusted(item: object) -> str:
    if not isinstance(item, str):
        raise ValueError(f"{item!r} is not text")
    if item in ("*", "unix"):
        return item
    from ipaddress import ip_network

    try:
        ip_network(item)
    except ValueError as error:
        # ipaddress alone knows whether it is the host bits, the mask or all of it.
        raise ValueError(str(error)) from None
    return item


#: RFC 9110 §5.6.2: the characters of a token, which a field name is.
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
#: Fields that frame a message or manage its connection: written once, by the server.
_FRAMING = frozenset(
    ("connection", "content-length", "keep-alive", "proxy-connection", "trailer",
     "transfer-encoding", "upgrade")
)  # fmt: skip


def _header(item: object) -> tuple[str, str]:
    name: object
    value: object
    if isinstance(item, str):
        name, colon, value = item.partition(":")
        if not colon:
            raise ValueError(f"{item!r} has no colon")
    elif isinstance(item, (tuple, list)) and len(item) == 2:
        name, value = item
    else:
        raise ValueError(f"{item!r} is not a header")
    if not isinstance(name, str) or not isinstance(value, str):
        raise ValueError(f"{item!r} is not text")
    if not name or not _TOKEN.issuperset(name):
        raise ValueError(f"{name!r} is not a header name")
    # RFC 9110 §5.5: CR, LF and NUL would end the field early; the other controls have no use.
    value = value.strip(" \t")
    if any((char < " " and char != "\t") or char == "\x7f" or char > "\xff" for char in value):
        raise ValueError(f"the value of {name} holds a character that no header can carry")
    if name.lower() in _FRAMING:
        raise ValueError(f"{name} is written by the server alone")
    return name, value


def _write_header(item: object) -> str:
    assert isinstance(item, tuple)
    return f"{item[0]}: {item[1]}"


def _sni(item: object) -> tuple[str, str, str | None]:
    if isinstance(item, str):
        host, equals, files = item.partition("=")
        if not equals:
            raise ValueError(f"{item!r} has no = between the host and its files")
        item = (host, files)
    if isinstance(item, (tuple, list)) and len(item) == 2 and isinstance(item[1], str):
        item = (item[0], *item[1].split(","))  # what a flag says, or the value in a table
        if len(item) == 2:
            item = (*item, None)
    if (
        not isinstance(item, (tuple, list))
        or len(item) != 3
        or not isinstance(item[0], str)
        or not isinstance(item[1], str)
        or not isinstance(item[2], (str, type(None)))
    ):
        raise ValueError(f"{item!r} is not a host, a certificate and its key")
    host, certificate, key = item[0].strip(), item[1].strip(), (item[2] or "").strip()
    if not certificate or "\0" in certificate + key:
        raise ValueError(f"{host!r} has no certificate")
    return _server_name(host), certificate, key or None


def _server_name(host: str) -> str:
    """A host as clients name it (RFC 6066 §3): A-labels, lower case, no dot at the end."""
    name = host.removesuffix(".").lower()
    if not name.isascii():
        try:
            name = name.encode("idna").decode()
        except UnicodeError:
            raise ValueError(f"{host!r} is not a host name") from None
    labels = name.removeprefix("*.").split(".")
    if not all(label and _LABEL.issuperset(label) for label in labels):
        star = " (a * stands for the whole first label)" if "*" in name else ""
        raise ValueError(f"{host!r} is not a host name{star}")
    if labels[-1].isdigit():
        raise ValueError(f"{host!r} is an address, and clients send no name for those")
    return name


_LABEL = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")


def _write_sni(item: object) -> str:
    assert isinstance(item, tuple)
    host, certificate, key = item
    return f"{host}={certificate},{key}" if key else f"{host}={certificate}"


HOST = Text("a host name or an address without a port", "HOST", check_host)
PORT = Integer(0, MAX_PORT, "PORT")
BIND = Several(
    "host:port, host, [ipv6]:port, :port, unix:/path or fd://number, and before it, for other "
    "protocols than HTTP, scgi:, uwsgi: or fastcgi:",
    "ADDRESS",
    _address,
    repeatable=True,
)
PLAIN_BIND = Several(
    "host:port, host, [ipv6]:port, :port, unix:/path or fd://number",
    "ADDRESS",
    _plain_address,
    repeatable=True,
)
OWNER = Text('"user", "user:group" or ":group", by name or number', "USER:GROUP", _owner)
ROOT_PATH = Text("a path that begins with / (or nothing)", "PATH", _root_path)
TRUSTED = Several("addresses, networks, * or unix, with commas between", "LIST", _trusted)
HEADERS = Several(
    '"Name: value", not a framing header',
    '"NAME: VALUE"',
    _header,
    separator="\n",
    write=_write_header,
    repeatable=True,
)
SNI = Several(
    "host=certificate,key; the host may begin with *., the key may be in the certificate's file",
    "HOST=CERT,KEY",
    _sni,
    separator="\n",
    write=_write_sni,
    repeatable=True,
)
