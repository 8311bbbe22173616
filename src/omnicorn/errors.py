"""The whole exception tree, L0: types only.

::

    OmnicornError
    ├── ProtocolError            a rule of a wire protocol was broken
    │   ├── LocalProtocolError   by our own caller: a bug on this side of the wire
    │   └── RemoteProtocolError  by the peer; carries the status to answer with
    │       ├── LimitExceeded    the peer asked for more than a configured limit
    │       ├── HandshakeRefused a request for a WebSocket that cannot be granted
    │       ├── WebSocketError   on an open WebSocket; carries the closing code
    │       ├── Http2StreamError one stream is over; carries the error code
    │       └── Http2Error       the whole HTTP/2 connection is; carries the error code
    ├── ASGIError                the application broke the ASGI contract
    ├── ClientDisconnected       (also OSError) the peer left; nothing more can be sent
    ├── ConfigError              an option, file or import string is wrong
    └── LifespanFailed           the application refused to start or failed to stop

Two questions decide a class: who is to blame (``Local``/``Remote``), and what the
catcher does next. Engines raise inside themselves only; nothing here ever crosses
``receive()`` into a loop.
"""

from __future__ import annotations


class OmnicornError(Exception):
    """Base of everything omnicorn raises on purpose."""


class ProtocolError(OmnicornError):
    """A rule of a wire protocol was broken.

    Args:
        reason: One line a person can act on; it names the rule, never echoes a secret.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class LocalProtocolError(ProtocolError):
    """Our caller asked an engine for something its protocol forbids."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol.

    Args:
        reason: What was wrong, for the log line.
        status: The HTTP status that answers it, where an answer is still possible.
    """

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.status = status


class LimitExceeded(RemoteProtocolError):
    """The peer asked for more than a configured limit allows.

    Args:
        reason: What was too large.
        status: 413, 414 or 431.
        limit: The limit that was crossed, in the unit of its option.
    """

    def __init__(self, reason: str, status: int, limit: int) -> None:
        super().__init__(f"{reason} (limit {limit})", status)
        self.limit = limit


class HandshakeRefused(RemoteProtocolError):
    """A request for a WebSocket that cannot be granted.

    Args:
        reason: What it lacks.
        status: The HTTP status that answers it.
        headers: Further fields of the answer.
    """

    def __init__(
        self, reason: str, status: int = 400, headers: list[tuple[bytes, bytes]] | None = None
    ) -> None:
        super().__init__(reason, status)
        self.headers = headers or []


class WebSocketError(RemoteProtocolError):
    """The peer of an open WebSocket broke the protocol.

    Args:
        reason: What was wrong; it goes into the close frame, so at most 123 bytes.
        code: The closing code (RFC 6455 §7.4.1).
    """

    def __init__(self, reason: str, code: int = 1002) -> None:
        super().__init__(reason)
        self.code = code


class Http2StreamError(RemoteProtocolError):
    """The peer broke the rules of one HTTP/2 stream; the others go on (RFC 9113 §5.4.2).

    Args:
        reason: What was wrong, for the log line.
        code: The error code of the RST_STREAM (RFC 9113 §7).
    """

    def __init__(self, reason: str, code: int) -> None:
        super().__init__(reason)
        self.code = code


class Http2Error(RemoteProtocolError):
    """The peer broke the rules of an HTTP/2 connection, which ends (RFC 9113 §5.4.1).

    Args:
        reason: What was wrong, for the log line and the GOAWAY frame.
        code: The error code of the GOAWAY (RFC 9113 §7).
    """

    def __init__(self, reason: str, code: int) -> None:
        super().__init__(reason)
        self.code = code


class ASGIError(OmnicornError, RuntimeError):
    """The application broke the ASGI contract; raised inside the application."""


class ClientDisconnected(OmnicornError, OSError):
    """The peer left before the response was complete (ASGI HTTP spec 2.4: an OSError).

    Raised out of ``send()``. An application may let it escape: it is not an error of
    the application and is never logged as one.
    """


class ConfigError(OmnicornError, ValueError):
    """A configuration value is unusable.

    Args:
        message: What is wrong and what to do about it.
        option: The option's name, where one is to blame.
        source: Where the value came from: a flag, a variable, a file.
    """

    def __init__(self, message: str, option: str | None = None, source: str | None = None) -> None:
        super().__init__(message)
        self.option = option
        self.source = source


class LifespanFailed(OmnicornError):
    """The application's lifespan startup or shutdown failed; the message is its own."""
