"""The one table of options; flags, variables, file keys and `Config` all come from it.

Each field of `Config` is declared once, through `option()`: default, kind, help, group,
extra flags and variables, and the version that brought it. Its name gives the rest::

    limit_request_body   --limit-request-body   OMNICORN_LIMIT_REQUEST_BODY
                         limit_request_body or limit-request-body in TOML

Invariants: whatever a `Config` holds is of the type and in the range of its option, for every
value is checked when it is set, whoever sets it; what options must not say together is judged
by `Config.validate`, before they are used; it holds typed values only (text is read in
``sources``, nowhere else); it knows no socket and no loop. To add an option, add a field,
and code that obeys it.

Names of hypercorn's are understood beside ours wherever a name is given (``hypercorn``
says what they mean); a value is always kept under our name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, cast, dataclass_transform

from omnicorn.config.bind import Bind, check_host, parse_bind
from omnicorn.config.kinds import (
    BIND,
    HEADERS,
    HOST,
    OWNER,
    PLAIN_BIND,
    PORT,
    ROOT_PATH,
    SNI,
    TRUSTED,
    CertReqs,
    Choice,
    Hsts,
    Integer,
    Kind,
    LogConfig,
    Permissions,
    Seconds,
    Secret,
    Size,
    Switch,
    Text,
    TLSContext,
)
from omnicorn.config.spelling import did_you_mean
from omnicorn.errors import ConfigError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from ssl import SSLContext

T = TypeVar("T")

ENV_PREFIX = "OMNICORN_"


class Option:
    """One row of the table.

    Args:
        default: The value when nobody says otherwise; None means "may be unset".
        kind: What a value may be.
        help: One or two sentences; units and meaning, not the default.
        group: The heading it is listed under.
        flag: The flag, where it is not the name with dashes.
        aliases: Further flags.
        env: Variables of other programs that are understood after our own.
        since: The version that brought it.
    """

    __slots__ = (
        "aliases", "default", "env", "flag", "flags", "group", "help", "kind", "name", "since",
    )  # fmt: skip

    def __init__(
        self,
        default: object,
        kind: Kind,
        help: str,
        group: str,
        flag: str | None,
        aliases: tuple[str, ...],
        env: tuple[str, ...],
        since: str,
    ) -> None:
        self.name = ""
        self.flags: tuple[str, ...] = ()
        self.default = default
        self.kind = kind
        self.help = help
        self.group = group
        self.flag = flag
        self.aliases = aliases
        self.env = env
        self.since = since

    def baptise(self, name: str) -> None:
        """Take the name of the field, and what follows from it."""
        self.name = name
        if self.kind.program_only:
            return
        self.flags = (self.flag or "--" + name.replace("_", "-"), *self.aliases)
        self.env = (ENV_PREFIX + name.upper(), *self.env)

    @property
    def is_switch(self) -> bool:
        return isinstance(self.kind, Switch)

    @property
    def optional(self) -> bool:
        return self.default is None

    def parse(self, text: str, source: str) -> object:
        """Read text, which comes from `source`, and check it.

        Raises:
            ConfigError: It is not such a value.
        """
        if self.optional and text.lower() in ("", "none"):
            return None
        try:
            value = self.kind.parse(text)
        except ValueError as error:
            raise self.error(text, str(error), source) from None
        return self.check(value, source, shown=text)

    def check(self, value: object, source: str | None = None, *, shown: object = None) -> object:
        """Return a typed value, normalised.

        Raises:
            ConfigError: The type or the range is wrong.
        """
        if value is None and self.optional:
            return None
        try:
            return self.kind.check(value)
        except ValueError as error:
            raise self.error(value if shown is None else shown, str(error), source) from None

    def show(self, value: object) -> str:
        """Return a value as TOML; None, which TOML lacks, as ``"none"``."""
        return '"none"' if value is None else self.kind.show(value)

    def error(self, value: object, reason: str, source: str | None) -> ConfigError:
        """Build the error that says what, from where, why, and what would do."""
        origin = f" (from {source})" if source else ""
        shown = "***" if self.kind.secret else repr(value)
        because = f"{reason}; " if reason else ""
        or_none = ", or none" if self.optional else ""
        return ConfigError(
            f"{self.name} = {shown}{origin}: {because}expected {self.kind.accepts}{or_none}",
            self.name,
            source,
        )


def option(
    default: T,
    kind: Kind,
    help: str,
    *,
    group: str,
    flag: str | None = None,
    aliases: tuple[str, ...] = (),
    env: tuple[str, ...] = (),
    since: str = "0.1",
) -> T:
    """Declare a field of `Config`; the arguments are those of `Option`."""
    # To the type checker it is the default; the class turns it into that.
    return cast("T", Option(default, kind, help, group, flag, aliases, env, since))


#: Every option by name, in the order of the help; filled by the class below.
OPTIONS: dict[str, Option] = {}


#: Ends the message about a name that nobody knows, where a command line is at hand.
LIST_HINT: Final = " (omnicorn --help lists all)"


def resolve(
    values: Mapping[str, object],
    current: Callable[[str], object],
    source: Callable[[str], str | None],
    hint: str = "",
) -> Iterator[tuple[Option, object, str | None]]:
    """Find the options that names mean; yields option, value (unchecked) and source.

    Args:
        values: What each name is given; our names are taken before hypercorn's.
        current: The value an option has by now, for names that give a part of it.
        source: Where a name stands, for messages.
        hint: Ends the message about a name that is unknown.

    Raises:
        ConfigError: A name is unknown, nothing here does what it asks for, or two names
            give one option.
    """
    foreign = []
    giver: dict[str, str] = {}
    for name, value in values.items():
        row = OPTIONS.get(name)
        if row is None:
            foreign.append(name)
        else:
            giver[name] = name
            yield row, value, source(name)
    if not foreign:
        return
    from omnicorn.config.hypercorn import NAMES, PARTIAL, translate

    for name in foreign:
        where = source(name)
        origin = f" (from {where})" if where else ""
        if name not in NAMES:
            near = did_you_mean(name, [*OPTIONS, *NAMES])
            raise ConfigError(f"unknown option {name!r}{origin}{near}{hint}", source=where)
        try:
            meaning = translate(name, values[name], current)
        except ValueError as error:
            raise ConfigError(f"{name} = {values[name]!r}{origin}: {error}", name, where) from None
        for option_name, value in meaning.items():
            if name not in PARTIAL and option_name in giver:
                raise ConfigError(
                    f"{giver[option_name]} and {name}{origin} both give {option_name}: "
                    "leave one of them out",
                    option_name,
                    where,
                )
            giver[option_name] = name
            yield OPTIONS[option_name], value, where or name


@dataclass_transform(kw_only_default=True)
class _Checked:
    """What a keyword-only dataclass that checks what it is given would be, typed as one.

    A generated one costs 3 ms of every start, a twentieth of all there is, to compile
    methods that three loops over the table do as well. Defaults are attributes of the
    class; an instance holds only what it was given.
    """

    def __init_subclass__(cls) -> None:
        if OPTIONS:
            raise TypeError(
                "Config has no subclasses: make one and set its attributes; ssl_context takes the "
                "place of create_ssl_context, headers that of response_headers"
            )
        for name, row in list(vars(cls).items()):
            if isinstance(row, Option):
                row.baptise(name)
                OPTIONS[name] = row
                setattr(cls, name, row.default)

    def __init__(self, **values: object) -> None:
        self._take(values)
        self.validate()

    def _take(self, values: Mapping[str, object], source: str | None = None) -> None:
        """Set all of them or, where one is wrong, none."""
        taken: dict[str, object] = {}

        def current(name: str) -> object:
            return taken[name] if name in taken else getattr(self, name)

        def where(name: str) -> str | None:
            return f"{source} [{name}]" if source else None

        for row, value, origin in resolve(values, current, where):
            taken[row.name] = row.check(value, origin)
        vars(self).update(taken)

    def validate(self) -> None:
        """Check values against each other."""

    # Hidden from type checkers, which would take every name for one that exists.
    if not TYPE_CHECKING:

        def __setattr__(self, name: str, value: object) -> None:
            row = OPTIONS.get(name)
            if row is not None:
                vars(self)[name] = row.check(value)
            else:
                self._take({name: value})

        def __getattr__(self, name: str) -> object:
            if name.startswith("_"):  # pickle and copy look whether methods are there
                raise AttributeError(name)
            from omnicorn.config.hypercorn import RENAMED

            if name in RENAMED:
                return getattr(self, RENAMED[name])
            near = did_you_mean(name, OPTIONS)
            raise AttributeError(f"a configuration has no {name!r}{near}")

    def __repr__(self) -> str:
        """Show what differs from the defaults."""
        changed = (
            f"{name}={'***' if row.kind.secret else repr(value)}"
            for name, row in OPTIONS.items()
            if (value := getattr(self, name)) != row.default
        )
        return f"{type(self).__name__}({', '.join(changed)})"

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in OPTIONS)

    __hash__ = None  # type: ignore[assignment]  # its values may change


SWITCH = Switch()
SIZE = Size()
WINDOW = Size(0x7FFFFFFF)  # RFC 9113 §6.9.1
SECONDS = Seconds()
SECONDS_OR_OFF = Seconds(off=True)

APPLICATION = "Application"
LISTENING = "Listening"
TLS = "TLS"
RUNNING = "Running"
PROXIES = "Proxies and response headers"
LOGGING = "Logging"
LIMITS = "Limits"
TIMEOUTS = "Timeouts"
HTTP = "HTTP"
WEBSOCKETS = "WebSockets"


class Config(_Checked):
    """Everything a server can be told; as keywords, or as attributes set later.

    A server takes a copy when it is made: what is set afterwards does not reach it.

    Raises:
        ConfigError: From making one and from setting an attribute: no option has this name,
            or a value has the wrong type or range. From making one: options exclude each other.
    """

    app: str | None = option(
        None,
        Text("module:attribute, as in main:app", "APP"),
        "The application to serve, as module:attribute; without :attribute, app or "
        "application is looked for.",
        group=APPLICATION,
    )
    factory: bool = option(
        False,
        SWITCH,
        "Call the attribute without arguments and serve what it returns.",
        group=APPLICATION,
    )
    app_dir: str = option(
        ".",
        Text("a folder", "DIR"),
        "Folder to import the application from.",
        group=APPLICATION,
    )
    interface: Literal["auto", "asgi3", "asgi2", "wsgi"] = option(
        "auto",
        Choice("auto", "asgi3", "asgi2", "wsgi"),
        "What the application speaks; auto looks at its signature.",
        group=APPLICATION,
    )
    lifespan: Literal["auto", "on", "off"] = option(
        "auto",
        Choice("auto", "on", "off"),
        "Lifespan events: auto goes on without them when the application knows none, on "
        "makes that a failure to start.",
        group=APPLICATION,
    )
    root_path: str = option(
        "",
        ROOT_PATH,
        "Path below which the application is mounted by the proxy in front.",
        group=APPLICATION,
    )

    host: str = option(
        "127.0.0.1",
        HOST,
        "Address to listen on; 0.0.0.0 is every IPv4 interface, :: every one.",
        group=LISTENING,
    )
    port: int = option(
        8000,
        PORT,
        "Port to listen on; 0 takes any free one.",
        group=LISTENING,
        env=("PORT",),
    )
    uds: str | None = option(
        None,
        Text("a path", "PATH"),
        "Listen on this Unix socket instead.",
        group=LISTENING,
    )
    fd: int | None = option(
        None,
        Integer(0, metavar="FD"),
        "Listen on this inherited, already bound socket instead.",
        group=LISTENING,
    )
    bind: Sequence[str] = option(
        (),
        BIND,
        "Listen here: host:port, host, [ipv6]:port, :port, unix:/path or fd://3; several times "
        "for several places. What is spoken there, if not HTTP, stands before it: scgi:, uwsgi: "
        "or fastcgi:. Replaces host, port, uds and fd.",
        group=LISTENING,
        aliases=("-b",),
    )
    uds_permissions: int | None = option(
        None,
        Permissions(),
        "Permissions of the Unix sockets we make, as chmod takes them.",
        group=LISTENING,
    )
    uds_owner: str | None = option(
        None,
        OWNER,
        "Owner of the Unix sockets we make: user, user:group or :group.",
        group=LISTENING,
    )
    reuse_port: bool = option(
        False,
        SWITCH,
        "Let several processes listen on the same port; the system spreads connections.",
        group=LISTENING,
    )
    backlog: int = option(
        2048,
        Integer(1, 2**31 - 1),
        "Connections the system may hold until they are accepted.",
        group=LISTENING,
    )

    ssl_certfile: str | None = option(
        None,
        Text("the path of a PEM file", "FILE"),
        "Speak TLS, with the certificate in this PEM file: the server's own first, then the "
        "intermediate ones; the key too, unless it has a file of its own. Read again when it "
        "changes.",
        group=TLS,
        aliases=("--certfile",),
    )
    ssl_keyfile: str | None = option(
        None,
        Text("the path of a PEM file", "FILE"),
        "The private key of the certificate, as PEM.",
        group=TLS,
        aliases=("--keyfile",),
    )
    ssl_keyfile_password: str | None = option(
        None,
        Secret("a password", "TEXT"),
        "Password of the private keys. Others can read a flag; better use the variable or the "
        "file.",
        group=TLS,
    )
    ssl_sni: Sequence[tuple[str, str, str | None]] = option(
        (),
        SNI,
        "Certificate and key for clients that ask for this host, which may be *.example.com; "
        "several times for several. The variable holds one per line.",
        group=TLS,
    )
    ssl_cert_reqs: Literal["none", "optional", "required"] = option(
        "none",
        CertReqs(),
        "Whether clients are asked for a certificate, and refused without one; a bad one is "
        "always refused.",
        group=TLS,
    )
    ssl_ca_certs: str | None = option(
        None,
        Text("the path of a PEM file", "FILE"),
        "Certificates of the authorities that clients' certificates must come from, as PEM.",
        group=TLS,
        aliases=("--ca-certs",),
    )
    ssl_crl: str | None = option(
        None,
        Text("the path of a PEM file", "FILE"),
        "Revocation lists, as PEM: one of every authority that issued certificates of clients.",
        group=TLS,
    )
    ssl_protocol_min: Literal["tls1.2", "tls1.3"] = option(
        "tls1.2",
        Choice("tls1.2", "tls1.3"),
        "Oldest version of TLS that is spoken.",
        group=TLS,
    )
    ssl_ciphers: str | None = option(
        None,
        Text("names of OpenSSL with colons between", "LIST"),
        "Ciphers of TLS 1.2, by OpenSSL's names; unset are those with forward secrecy and AEAD. "
        "Those of TLS 1.3 are fixed.",
        group=TLS,
        aliases=("--ciphers",),
    )
    ssl_context: SSLContext | None = option(
        None,
        TLSContext(),
        "A program's own context, used as it is, in place of the options above.",
        group=TLS,
    )
    dev_tls: bool = option(
        False,
        SWITCH,
        "Speak TLS with a self-signed certificate for localhost, made once and kept; for "
        "development. Needs omnicorn[dev-tls].",
        group=TLS,
    )
    insecure_bind: Sequence[str] = option(
        (),
        PLAIN_BIND,
        "Serve here, too, without TLS; written as for bind, several times for several places.",
        group=TLS,
    )
    redirect_http: int | None = option(
        None,
        PORT,
        "Listen on this port, too, without TLS, and answer 308 with the https address.",
        group=TLS,
    )
    hsts: str | None = option(
        None,
        Hsts(),
        "Send strict-transport-security: browsers use https alone for so many seconds; or the "
        "field's whole value.",
        group=TLS,
    )

    loop: Literal["auto", "asyncio", "uvloop", "trio"] = option(
        "auto",
        Choice("auto", "asyncio", "uvloop", "trio"),
        "Event loop; auto takes uvloop where it is installed, else asyncio.",
        group=RUNNING,
    )
    threads: int | None = option(
        None,
        Integer(1),
        "Threads that run a WSGI application; unset is four more than there are processors, 32 "
        "at most.",
        group=RUNNING,
    )

    proxy_headers: bool = option(
        True,
        SWITCH,
        "Take the client's address and scheme from the headers of trusted proxies.",
        group=PROXIES,
    )
    forwarded_allow_ips: Sequence[str] = option(
        ("127.0.0.1", "::1"),
        TRUSTED,
        "Proxies to trust: addresses and networks with commas between, unix for whoever "
        "connects by Unix socket, * for everybody.",
        group=PROXIES,
        env=("FORWARDED_ALLOW_IPS",),
    )
    proxy_protocol: bool = option(
        False,
        SWITCH,
        "Expect a PROXY header, version 1 or 2, at the start of every HTTP connection, and take "
        "the client's address from it.",
        group=PROXIES,
    )
    proxy_allow_from: Sequence[str] = option(
        ("127.0.0.1", "::1", "unix"),
        TRUSTED,
        "Who may send a PROXY header, written as for forwarded-allow-ips; others are cut off.",
        group=PROXIES,
    )
    server_header: bool = option(True, SWITCH, "Send a Server header by default.", group=PROXIES)
    date_header: bool = option(True, SWITCH, "Send a Date header by default.", group=PROXIES)
    headers: Sequence[tuple[str, str]] = option(
        (),
        HEADERS,
        "Add this header to every response; several times for several. The variable "
        "holds one per line.",
        group=PROXIES,
        flag="--header",
    )

    log_level: Literal["critical", "error", "warning", "info", "debug"] = option(
        "info",
        Choice("critical", "error", "warning", "info", "debug"),
        "The least serious messages to log.",
        group=LOGGING,
    )
    log_config: str | Mapping[str, Any] | None = option(
        None,
        LogConfig(),
        "Logging configuration for Python's logging: .ini, .json, .yaml or .toml.",
        group=LOGGING,
    )
    access_log: bool = option(True, SWITCH, "Log every request.", group=LOGGING)
    access_log_format: str | None = option(
        None,
        Text("a format", "FORMAT"),
        "Format of an access log line; unset is the access log's own.",
        group=LOGGING,
    )
    access_log_file: str | None = option(
        None,
        Text("a path, or - for standard output", "FILE"),
        "Write the access log to this file; unset or - is standard output.",
        group=LOGGING,
        aliases=("--access-logfile",),
    )
    use_colors: bool | None = option(
        None,
        SWITCH,
        "Colour the log; unset means when it goes to a terminal.",
        group=LOGGING,
    )

    limit_concurrency: int | None = option(
        None,
        Integer(1),
        "Answer 503 beyond this many requests at a time; unset is no limit.",
        group=LIMITS,
    )
    limit_request_line: int = option(8192, SIZE, "Longest request line, in bytes.", group=LIMITS)
    limit_request_head: int = option(
        65536, SIZE, "Largest request line and headers together, in bytes.", group=LIMITS
    )
    limit_request_fields: int = option(128, Integer(1), "Most headers in a request.", group=LIMITS)
    limit_request_body: int | None = option(
        None, SIZE, "Largest request body, in bytes; unset is no limit.", group=LIMITS
    )

    timeout_ssl_handshake: float = option(
        10.0,
        SECONDS,
        "Time for a TLS handshake.",
        group=TIMEOUTS,
    )
    timeout_request_head: float = option(
        15.0,
        SECONDS,
        "Time for a whole request line and its headers to arrive, from the first byte.",
        group=TIMEOUTS,
    )
    timeout_body: float = option(
        30.0,
        SECONDS,
        "Longest pause within a request body that the application waits for.",
        group=TIMEOUTS,
    )
    timeout_keep_alive: float = option(
        75.0,
        SECONDS,
        "Time an idle connection is kept for its next request.",
        group=TIMEOUTS,
        aliases=("--keep-alive",),
    )
    timeout_write: float = option(
        60.0,
        SECONDS,
        "Longest time a client may take no byte of a response that waits for it.",
        group=TIMEOUTS,
    )
    timeout_graceful_shutdown: float = option(
        30.0,
        SECONDS,
        "Time that running requests get to finish when the server stops.",
        group=TIMEOUTS,
        aliases=("--graceful-timeout",),
    )
    timeout_startup: float | None = option(
        None,
        SECONDS,
        "Time that the application's lifespan has to start; without it, any.",
        group=TIMEOUTS,
    )
    timeout_shutdown: float | None = option(
        None,
        SECONDS,
        "Time that the application's lifespan has to stop; without it, that of "
        "timeout_graceful_shutdown once more.",
        group=TIMEOUTS,
    )

    http: Literal["auto", "1", "2"] = option(
        "auto",
        Choice("auto", "1", "2"),
        "Versions of HTTP: auto is HTTP/1.1, and HTTP/2 where the client asks for it.",
        group=HTTP,
    )
    h2_max_concurrent_streams: int = option(
        128,
        Integer(1),
        "Requests at once on one HTTP/2 connection; further ones are refused.",
        group=HTTP,
    )
    h2_initial_window: int = option(
        1 << 20,
        WINDOW,
        "Bytes of all request bodies of an HTTP/2 connection that may wait for the application.",
        group=HTTP,
    )
    h2_initial_stream_window: int = option(
        256 << 10,
        WINDOW,
        "Bytes of one request body on HTTP/2 that may wait for the application.",
        group=HTTP,
    )
    h2_ping_interval: float = option(
        60.0,
        SECONDS_OR_OFF,
        "Silence of an HTTP/2 client with requests in flight before it gets a PING, and before "
        "it is given up without an answer; 0 sends none.",
        group=HTTP,
    )

    fastcgi_max_concurrency: int = option(
        128,
        Integer(1),
        "Requests at once on one FastCGI connection; further ones are refused. With 1, a front "
        "that asks is told not to multiplex.",
        group=HTTP,
    )

    ws: Literal["auto", "none"] = option(
        "auto",
        Choice("auto", "none"),
        "WebSockets; with none, a request for one is a request like any other.",
        group=WEBSOCKETS,
    )
    ws_max_size: int = option(
        16 << 20,
        SIZE,
        "Largest message, in bytes once inflated; as many bytes may wait for the application.",
        group=WEBSOCKETS,
    )
    ws_max_queue: int = option(
        32,
        Integer(1),
        "Messages of a client that may wait for the application; then it is read no further.",
        group=WEBSOCKETS,
    )
    ws_ping_interval: float = option(
        20.0,
        SECONDS_OR_OFF,
        "Time between pings; 0 sends none.",
        group=WEBSOCKETS,
    )
    ws_ping_timeout: float = option(
        20.0,
        SECONDS_OR_OFF,
        "Time a client has to answer a ping; 0 does not wait for answers.",
        group=WEBSOCKETS,
    )
    ws_per_message_deflate: bool = option(
        True,
        SWITCH,
        "Compress messages where the client offers it.",
        group=WEBSOCKETS,
    )

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> Config:
        """Read the options of a TOML file, as ``--config`` does.

        Raises:
            ConfigError: The file cannot be read, or a name or a value in it is wrong.
        """
        from omnicorn.config.sources import read_toml

        return read_toml(path)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any] | None = None, **options: Any) -> Config:
        """Take the options from a mapping, and from keywords, which win.

        Raises:
            ConfigError: A name or a value is wrong.
        """
        try:
            values: dict[Any, Any] = {**(mapping or {}), **options}
        except TypeError:
            raise ConfigError(f"expected a mapping of options, not {mapping!r:.80}") from None
        for name in values:
            if not isinstance(name, str):
                raise ConfigError(f"the names of options are strings, not {name!r:.80}")
        return cls._of(values, "mapping")

    @classmethod
    def from_object(cls, instance: object) -> Config:
        """Take the options from the attributes of an object, in lower case.

        Modules, classes, functions, and names with a capital letter or an underscore at the
        start are passed over.

        Args:
            instance: A module, class or any other object; or where to import one from:
                ``"package.module"``, ``"package.module.name"`` or ``"package.module:name"``.

        Raises:
            ConfigError: Nothing can be imported from there, or a name or a value is wrong.
        """
        from omnicorn.config.objects import from_object

        return cls._of(*from_object(instance))

    @classmethod
    def from_pyfile(cls, path: str | os.PathLike[str]) -> Config:
        """Run a Python file and take its variables; see `from_object`.

        Raises:
            ConfigError: The file cannot be read or fails, or a name or a value is wrong.
        """
        from omnicorn.config.objects import from_pyfile

        return cls._of(*from_pyfile(path))

    @classmethod
    def _of(cls, values: Mapping[str, object], source: str) -> Config:
        config = cls()
        config._take(values, source)
        config.validate()
        return config

    def validate(self) -> None:
        """Check the options against each other; a server does it before it starts.

        Raises:
            ConfigError: Some exclude each other, or have no effect.
        """
        if self.uds is not None and self.fd is not None and not self.bind:
            raise ConfigError(
                "uds and fd are both given: choose one, or list both places in bind", "uds"
            )
        self._check_tls()
        self._check_proxy_protocol()

    def _check_proxy_protocol(self) -> None:
        if not self.proxy_protocol:
            if self.proxy_allow_from != OPTIONS["proxy_allow_from"].default:
                raise ConfigError(
                    "proxy_allow_from is for the PROXY protocol, which is off: give "
                    "proxy_protocol, too",
                    "proxy_allow_from",
                )
        elif not self.proxy_allow_from:
            raise ConfigError(
                "proxy_protocol is on, but proxy_allow_from lets nobody speak it, so nobody could "
                "connect: name the proxies there",
                "proxy_allow_from",
            )
        elif not self._serves_http():
            raise ConfigError(
                "proxy_protocol has no effect: no place in bind is for HTTP", "proxy_protocol"
            )

    def _serves_http(self) -> bool:
        return any(bind.scheme == "http" for bind in self.binds)

    def _check_tls(self) -> None:
        """What would make a server less safe than its operator believes is an error."""
        given = [name for name in _TLS_NAMES if getattr(self, name) != OPTIONS[name].default]
        if not given:
            return
        ways = [name for name in _TLS_WAYS if name in given]
        if not ways:
            raise ConfigError(
                f"{given[0]} is for TLS, which is off: give ssl_certfile (or dev_tls)", given[0]
            )
        if len(ways) > 1:
            raise ConfigError(f"{' and '.join(ways)} exclude each other: choose one", ways[1])
        if not self._serves_http():
            raise ConfigError(
                f"{ways[0]} has no effect: no place in bind is for HTTP, and only that is spoken "
                "over TLS",
                ways[0],
            )
        if self.ssl_context is not None:
            idle = [name for name in given if name.startswith("ssl_") and name != "ssl_context"]
        elif self.dev_tls:
            # A password may be that of the keys in ssl_sni.
            names = ("ssl_keyfile",) if self.ssl_sni else ("ssl_keyfile", "ssl_keyfile_password")
            idle = [name for name in names if name in given]
        else:
            idle = []
        if idle:
            raise ConfigError(
                f"{idle[0]} has no effect with {ways[0]}, which brings its own: leave it out",
                idle[0],
            )
        if self.ssl_cert_reqs == "none":
            for name in ("ssl_ca_certs", "ssl_crl"):
                if name in given:
                    raise ConfigError(
                        f"{name} is given, but no client is asked for a certificate: set "
                        "ssl_cert_reqs to optional or required",
                        name,
                    )
        elif self.ssl_ca_certs is None:
            raise ConfigError(
                f"ssl_cert_reqs is {self.ssl_cert_reqs}, but no authority is trusted: give "
                "ssl_ca_certs",
                "ssl_ca_certs",
            )

    def replace(self, **changes: Any) -> Config:
        """Return a copy with some values changed, or none.

        Raises:
            ConfigError: A new value is wrong, or the copy as a whole.
        """
        copy = object.__new__(Config)
        vars(copy).update(vars(self))
        copy._take(changes)
        copy.validate()
        return copy

    @property
    def tls(self) -> bool:
        """Whether TLS is spoken."""
        return self.ssl_certfile is not None or self.dev_tls or self.ssl_context is not None

    @property
    def binds(self) -> tuple[Bind, ...]:
        """The places to listen at, whichever options named them; never empty.

        ``bind`` replaces the others; without it ``fd``, then ``uds``, then host and port.
        """
        if self.bind:
            return tuple([parse_bind(text) for text in self.bind])
        if self.fd is not None:
            return (Bind("fd", fd=self.fd),)
        if self.uds is not None:
            return (Bind("unix", path=self.uds),)
        return (Bind("tcp", host=check_host(self.host), port=self.port),)

    @property
    def insecure_binds(self) -> tuple[Bind, ...]:
        """The places to serve without TLS at, beside `binds`."""
        return tuple([parse_bind(text) for text in self.insecure_bind])


_TLS_NAMES = tuple([row.name for row in OPTIONS.values() if row.group == TLS])
_TLS_WAYS = ("ssl_certfile", "dev_tls", "ssl_context")
