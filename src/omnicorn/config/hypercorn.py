"""hypercorn's names for options, and what each of them is here.

What this file alone decides: which of our options a name gives, with which value, and what
to tell whom where there is none. Three tables, one for each way:

- ``RENAMED``: the same option, whose value means the same;
- ``TRANSLATED``: other values, or several options at once;
- ``REFUSED``: nothing here does it. The value that asks for nothing is accepted, for it asks
  for what happens anyway; every other is an error that says what to do instead.

So nothing is read and then not obeyed. Values are judged by our option afterwards; what is
raised here is a ValueError, whose text `options.resolve` completes. The module is imported
when the first such name is met.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Current = Callable[[str], object]
    Meaning = Mapping[str, object]
    Translate = Callable[[object, Current], Meaning]

RENAMED: Final[dict[str, str]] = {
    "shutdown_timeout": "timeout_shutdown",
    "startup_timeout": "timeout_startup",
    "ca_certs": "ssl_ca_certs",
    "cert_reqs": "ssl_cert_reqs",
    "certfile": "ssl_certfile",
    "ciphers": "ssl_ciphers",
    "graceful_timeout": "timeout_graceful_shutdown",
    "h2_max_header_list_size": "limit_request_head",
    "include_date_header": "date_header",
    "include_server_header": "server_header",
    "keep_alive_timeout": "timeout_keep_alive",
    "keyfile": "ssl_keyfile",
    "keyfile_password": "ssl_keyfile_password",
    "logconfig_dict": "log_config",
    "loglevel": "log_level",
    "max_app_queue_size": "ws_max_queue",
    "ssl_handshake_timeout": "timeout_ssl_handshake",
    "websocket_max_message_size": "ws_max_size",
    "worker_class": "loop",
    "wsgi_max_body_size": "limit_request_body",
}


def _accesslog(value: object, _: Current) -> Meaning:
    if value is None:
        return {"access_log": False}
    if not isinstance(value, str):
        raise ValueError(
            "a path or - is expected; for a logger of your own leave it out and configure the "
            "logger omnicorn.access"
        )
    return {"access_log": True, "access_log_file": value}


def _alpn_protocols(value: object, _: Current) -> Meaning:
    versions = {"auto": ["h2", "http/1.1"], "1": ["http/1.1"], "2": ["h2"]}
    for version, offered in versions.items():
        if isinstance(value, (list, tuple)) and list(value) == offered:
            return {"http": version}
    raise ValueError(f"expected one of {', '.join(map(str, versions.values()))}")


def _alt_svc_headers(value: object, current: Current) -> Meaning:
    if isinstance(value, str) or not isinstance(value, (list, tuple)):
        raise ValueError("expected a list of values of the alt-svc header")
    headers = current("headers")
    assert isinstance(headers, tuple)
    others = [header for header in headers if header[0].lower() != "alt-svc"]
    return {"headers": [*others, *(("alt-svc", text) for text in value)]}


def _application_path(value: object, _: Current) -> Meaning:
    if isinstance(value, str):
        for prefix, interface in (("asgi:", "asgi3"), ("wsgi:", "wsgi")):
            # asgi:main:app, and not app of a module called asgi.
            if value.startswith(prefix) and value.count(":") > 1:
                return {"app": value[len(prefix) :], "interface": interface}
    return {"app": value}


def _errorlog(value: object, _: Current) -> Meaning:
    if value != "-":
        raise ValueError(
            "messages go to standard error; to send them elsewhere give log_config, with the "
            "logger omnicorn"
        )
    return {}


def _h11_max_incomplete_size(value: object, _: Current) -> Meaning:
    return {"limit_request_line": value, "limit_request_head": value}


def _logconfig(value: object, _: Current) -> Meaning:
    if isinstance(value, str):
        for suffix in ("json", "toml"):
            path = value.removeprefix(f"{suffix}:")
            if path != value:
                if not path.endswith(f".{suffix}"):
                    raise ValueError(
                        f"the kind of file is told by its name: call it {path}.{suffix}"
                    )
                return {"log_config": path}
    return {"log_config": value}


def _owner_part(index: int) -> Translate:
    def translate(value: object, current: Current) -> Meaning:
        owner = current("uds_owner")
        parts = ["", ""]
        if isinstance(owner, str):
            user, _, group = owner.partition(":")
            parts = [user, group]
        if value is None:
            parts[index] = ""
        elif isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            parts[index] = str(value)
        else:
            raise ValueError("expected a number; names are understood by uds_owner")
        user, group = parts
        return {"uds_owner": (f"{user}:{group}" if group else user) or None}

    return translate


def _read_timeout(value: object, _: Current) -> Meaning:
    return {} if value is None else {"timeout_body": value}


def _umask(value: object, _: Current) -> Meaning:
    if value is None:
        return {"uds_permissions": None}
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 0o777:
        raise ValueError("expected a number from 0 to 0o777")
    return {"uds_permissions": 0o777 & ~value}


def _verify_mode(value: object, _: Current) -> Meaning:
    return {"ssl_cert_reqs": "none" if value is None else value}


def _websocket_ping_interval(value: object, _: Current) -> Meaning:
    return {"ws_ping_interval": 0 if value is None else value}


TRANSLATED: Final[dict[str, Translate]] = {
    "accesslog": _accesslog,
    "alpn_protocols": _alpn_protocols,
    "alt_svc_headers": _alt_svc_headers,
    "application_path": _application_path,
    "errorlog": _errorlog,
    "group": _owner_part(1),
    "h11_max_incomplete_size": _h11_max_incomplete_size,
    "logconfig": _logconfig,
    "read_timeout": _read_timeout,
    "umask": _umask,
    "user": _owner_part(0),
    "verify_mode": _verify_mode,
    "websocket_ping_interval": _websocket_ping_interval,
}

#: Names that give a part of their option and keep the rest of it.
PARTIAL: Final = frozenset({"alt_svc_headers", "group", "user"})


class Refusal(NamedTuple):
    """Why a name means nothing here.

    Args:
        advice: What to do instead.
        nothing: Values that ask for nothing.
    """

    advice: str
    nothing: tuple[object, ...] = (None, "", 0, [], ())


_METRICS = "metrics are not sent; leave it out, a middleware of the application can send them"
_ONE_PROCESS = "a server is one process"

REFUSED: Final[dict[str, Refusal]] = {
    "daemon": Refusal(f"{_ONE_PROCESS} and has no children; leave it out", ()),
    "debug": Refusal("set the variable PYTHONASYNCIODEBUG=1 instead"),
    "dogstatsd_tags": Refusal(_METRICS),
    "h11_pass_raw_headers": Refusal("ASGI wants header names in lower case; leave it out"),
    "h2_max_inbound_frame_size": Refusal(
        "frames of up to 16384 bytes are taken, the default of HTTP/2; leave it out", (16384,)
    ),
    "keep_alive_max_requests": Refusal(
        "a connection has no number of requests after which it ends; leave it out", ()
    ),
    "logger_class": Refusal("configure the loggers omnicorn and omnicorn.access by log_config"),
    "max_requests": Refusal(
        "the server does not restart itself; leave it out, whatever supervises it can restart it"
    ),
    "max_requests_jitter": Refusal("the server does not restart itself; leave it out"),
    "pid_path": Refusal(
        "no file is written; leave it out, whatever starts the server knows its process"
    ),
    "quic_bind": Refusal("HTTP/3 is not spoken; leave it out"),
    "server_names": Refusal(
        "every Host is served; leave it out, and have the proxy or a middleware of the application "
        "refuse the others"
    ),
    "statsd_host": Refusal(_METRICS),
    "statsd_prefix": Refusal(_METRICS),
    "use_reloader": Refusal(
        "the server does not restart itself; start it by a program that watches files, such as "
        "watchfiles"
    ),
    "verify_flags": Refusal(
        "give ssl_crl to look at revocation lists, or for everything else an ssl.SSLContext of "
        "your own as ssl_context"
    ),
    "workers": Refusal(f"{_ONE_PROCESS}; start several on one port with reuse_port", (None, 0, 1)),
}

NAMES: Final = frozenset({*RENAMED, *TRANSLATED, *REFUSED})


def translate(name: str, value: object, current: Current) -> Meaning:
    """Return the options that a name of ``NAMES`` gives, and their values, unchecked.

    Args:
        name: One of ``NAMES``.
        value: What it is given.
        current: The value that one of our options has by now.

    Raises:
        ValueError: Nothing here does what it asks for; the text says what to do.
    """
    if name in RENAMED:
        return {RENAMED[name]: value}
    if name in TRANSLATED:
        return TRANSLATED[name](value, current)
    refusal = REFUSED[name]
    if value not in refusal.nothing:
        raise ValueError(refusal.advice)
    return {}


def advice(name: str) -> str | None:
    """Return what to do instead of using a name, where an option of ours does not replace it."""
    refusal = REFUSED.get(name)
    return None if refusal is None else refusal.advice
