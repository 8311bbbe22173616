"""TLS between any transport and any connection, on any loop: bytes in memory, no socket.

What this file alone decides: how a handshake is held and how it fails, and what the two
directions of a TLS connection mean in the terms of the ports. Versions, ciphers and
certificates are the context's business.

::

    transport ──data_received──▶ incoming ─▶ SSLObject ──data_received──▶ connection
        ▲                                      │ ▲                            │
        └────write──── outgoing ◀──────────────┘ └──────────write─────────────┘

Rules:

1. ``connect`` or ``on_failure`` is called first, and exactly one of them: a transport that
   has not called either is still in its handshake.
2. What came in one segment goes up in one piece, or, past `_MOST` bytes, in several. A paused
   connection is told nothing: the transport below is paused, too, and stays so until what
   was held here has been told.
3. What is written in one call goes down in one write, or, past `_MOST` bytes, in several.
   To join what is large costs as much as to encrypt it.
4. Each direction ends for itself (RFC 8446 §6.1). The peer's close_notify is the end of its
   bytes, and so is a FIN without one: whether something is missing is for the framing above
   to know. ``write_eof`` sends close_notify and FIN and goes on reading, so that a connection
   can linger. A peer of TLS 1.2 will answer it by closing (RFC 5246 §7.2.1).
5. Nobody's last word is taken away: after an alert or a refusal we write nothing more, read
   and drop for `LAST_WORD` seconds, then close.
6. Nothing of size is kept between two calls: OpenSSL's memory BIOs never shrink, so they are
   filled `_PIECE` bytes at a time.
"""

from __future__ import annotations

from ssl import (
    MemoryBIO,
    SSLCertVerificationError,
    SSLError,
    SSLWantReadError,
    SSLZeroReturnError,
)
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from ssl import SSLContext, SSLObject

    from omnicorn.ports import ConnectionPort, Loop, Timer, Transport

LAST_WORD = 2.0
"""Seconds a peer may take to read why it was refused."""

_RECORD = 16384  # bytes of plain text in a record at most (RFC 8446 §5.1)
_PIECE = 65536  # bytes of something large that go through a memory BIO at once
_MOST = _PIECE + _RECORD  # what is no larger than this goes in one piece
_MAX_ANSWERS = 16384  # bytes of answers to key updates: one is due every 400 GB (RFC 8446 §5.5)

_BODY = b"This port speaks TLS: ask for https, not for http.\n"
_PLAIN_HTTP = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n"
    b"connection: close\r\n\r\n%b" % (len(_BODY), _BODY)
)

# What becomes of bytes that come.
_HANDSHAKE, _OPEN, _ENDED = range(3)


class TLSTransport:
    """`ConnectionPort` to what is below, `Transport` to what is above.

    Args:
        loop: For the time a handshake may take.
        context: A server's; the one of this connection, also if another follows it.
        connect: Called with this transport when the handshake is complete; returns what is
            to be connected, for instance by ``get_extra_info("ssl_object")``'s
            ``selected_alpn_protocol()``. Then follow its ``connection_made`` and its bytes.
        timeout: Seconds a handshake may take, from ``connection_made`` on.
        on_failure: Called with this transport, a level and a reason in one line. The level
            is ``"info"`` where one of both sides is wrong (plain HTTP, no shared cipher, a
            bad certificate), ``"debug"`` where the peer has just gone (reset, end, timeout).
            Instead of ``connect``; or later, at most once and as ``"debug"``, when the peer
            ends without close_notify or sends what cannot be decrypted. Nothing but
            ``get_extra_info`` may be asked of the transport.
    """

    __slots__ = (
        "__weakref__",
        "_answered",
        "_connect",
        "_context",
        "_encrypt",
        "_error",
        "_feed",
        "_held",
        "_incoming",
        "_input",
        "_loop",
        "_lower",
        "_object",
        "_on_data",
        "_on_failure",
        "_outgoing",
        "_output",
        "_paused",
        "_port",
        "_read",
        "_send",
        "_take",
        "_timeout",
        "_timer",
        "_waits",
    )

    _lower: Transport
    _object: SSLObject | None
    _incoming: MemoryBIO
    _outgoing: MemoryBIO
    _read: Callable[[int], bytes]
    _encrypt: Callable[[bytes | memoryview], int]
    _feed: Callable[[bytes | memoryview], int]
    _take: Callable[[], bytes]
    _send: Callable[[bytes], object]
    _on_data: Callable[[bytes], None]

    def __init__(
        self,
        loop: Loop,
        context: SSLContext,
        connect: Callable[[Any], ConnectionPort],
        timeout: float,
        on_failure: Callable[[Any, str, str], object],
    ) -> None:
        self._loop = loop
        self._context = context
        self._connect = connect
        self._timeout = timeout
        self._on_failure = on_failure
        self._timer: Timer | None = None
        self._object = None
        self._port: ConnectionPort | None = None
        self._error: Exception | None = None
        self._input = _HANDSHAKE
        self._output = False
        self._paused = False
        self._answered = 0
        self._waits = False  # in a pause: *held*, what came with the handshake, or the end
        self._held = memoryview(b"")

    # ------------------------------------------------------------------ from below

    def connection_made(self, transport: Any) -> None:
        self._lower = transport
        self._send = transport.write
        self._timer = self._loop.call_at(self._loop.time() + self._timeout, self._timed_out)

    def data_received(self, data: bytes) -> None:
        if self._input != _OPEN or len(data) > _MOST:
            self._received_otherwise(data)
            return
        # The common case is one record, or a few bytes of one.
        try:
            self._feed(data)
            plain = self._read(_RECORD)
        except SSLWantReadError:
            if self._outgoing.pending:
                self._answer()
            return
        except SSLZeroReturnError:
            plain = b""
        except SSLError as exc:
            self._break(exc)
            return
        if not plain:
            self._end_input()
        elif self._incoming.pending:
            self._deliver([plain], memoryview(b""))
        else:
            self._on_data(plain)
            if self._outgoing.pending:
                self._answer()

    def _received_otherwise(self, data: bytes) -> None:
        if self._input == _HANDSHAKE:
            self._shake_hands(data)
        elif self._input == _OPEN:
            self._deliver([], memoryview(data))

    def _deliver(self, pieces: list[bytes], rest: memoryview) -> None:
        """Send up *pieces*, with what the BIO holds, and then *rest*."""
        read = self._read
        incoming = self._incoming
        while True:
            if rest:
                self._feed(rest[:_PIECE])
                rest = rest[_PIECE:]
            ended = False
            try:
                while incoming.pending and not ended:
                    if piece := read(_RECORD):
                        pieces.append(piece)
                    else:
                        ended = True
            except SSLWantReadError:
                pass
            except SSLZeroReturnError:  # its name for the end, after our own close_notify
                ended = True
            except SSLError as exc:
                self._break(exc)
                return
            if pieces:
                self._on_data(pieces[0] if len(pieces) == 1 else b"".join(pieces))
                pieces.clear()
            if self._outgoing.pending:
                self._answer()
            if self._input != _OPEN:
                return  # closed by the upcall, or lost patience
            if ended:
                self._end_input()
                return
            if not rest:
                return
            if self._paused:
                self._held = rest
                self._waits = True
                return

    def _end_input(self) -> None:
        """The peer has said close_notify."""
        self._input = _ENDED
        if self._paused:
            self._waits = True
        else:
            self._tell_end()

    def _tell_end(self) -> None:
        port = self._port
        if port is not None and not port.eof_received():
            self.close()

    def _answer(self) -> None:
        """Send what OpenSSL has to say on its own account: key updates, alerts."""
        data = self._take()
        if self._output:
            self._send(data)
            self._answered += len(data)
            if self._answered > _MAX_ANSWERS:
                self._on_failure(self, "debug", "the peer updates its keys without end")
                self.abort()

    def eof_received(self) -> bool:
        """Returns whether the transport below stays open for writing."""
        if self._input == _OPEN:
            self._input = _ENDED
            if self._output:  # else it has had its answer, and leaves
                self._on_failure(self, "debug", "the peer has ended without close_notify")
            self._tell_end()
        elif self._input == _HANDSHAKE:
            self._fail("debug", "the peer has gone during the TLS handshake")
        return self._output

    def pause_writing(self) -> None:
        if self._port is not None:
            self._port.pause_writing()

    def resume_writing(self) -> None:
        if self._port is not None:
            self._port.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        if self._input == _HANDSHAKE:
            how = "was cut" if exc is None else "has been reset by the peer"
            self._fail("debug", f"the connection {how} during the TLS handshake")
        self._input = _ENDED
        self._output = self._waits = False
        port, self._port = self._port, None
        if port is not None:
            port.connection_lost(self._error or exc)

    # ------------------------------------------------------------------ the handshake

    def _shake_hands(self, data: bytes) -> None:
        tls = self._object
        if tls is None:
            # No record begins with a letter, each request does: methods are tokens in capitals,
            # and so is the preface of HTTP/2.
            if data[:1].isupper():
                self._fail("info", "plain HTTP was sent to a port that speaks TLS")
                self._linger(_PLAIN_HTTP)
                return
            incoming = self._incoming = MemoryBIO()
            outgoing = self._outgoing = MemoryBIO()
            tls = self._context.wrap_bio(incoming, outgoing, server_side=True)
            self._object = tls
            self._feed = incoming.write
            self._take = outgoing.read
        self._feed(data)
        try:
            tls.do_handshake()
        except SSLWantReadError:
            if self._outgoing.pending:
                self._send(self._take())
            return
        except SSLError as exc:
            self._fail("info", f"the TLS handshake failed: {_reason(exc)}")
            self._linger(self._take())
            return
        self._stop_timer()
        self._read = tls.read
        self._encrypt = tls.write
        self._input = _OPEN
        self._output = True
        port = self._connect(self)
        self.set_protocol(port)
        port.connection_made(self)
        if self._incoming.pending and self._input == _OPEN:
            if self._paused:
                self._waits = True
            else:
                self.data_received(b"")
        # Tickets leave together with the answer to what came with the last flight, if there
        # is one already.
        if self._outgoing.pending:
            self._send(self._take())

    def _timed_out(self) -> None:
        self._fail("debug", f"no TLS handshake within {self._timeout:g} seconds")
        self._lower.abort()

    def _fail(self, level: str, reason: str) -> None:
        self._input = _ENDED
        self._stop_timer()
        self._on_failure(self, level, reason)

    def _linger(self, last: bytes) -> None:
        """Say a last word, and see that it is read (rule 5)."""
        lower = self._lower
        self._last_word(last)
        if lower.can_write_eof():
            try:
                lower.write_eof()
            except OSError:  # the peer has gone, and the loop does not know it yet
                lower.abort()
        else:
            lower.close()

    def _last_word(self, last: bytes) -> None:
        if last:
            self._send(last)
        self._timer = self._loop.call_at(self._loop.time() + LAST_WORD, self._lower.abort)

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    # ------------------------------------------------------------------ from above

    def write(self, data: bytes | memoryview, /) -> None:
        """See `Transport`."""
        if not self._output or not data:
            return
        try:
            if len(data) > _MOST:
                data = self._write_most(data)
            self._encrypt(data)
            self._send(self._take())
        except SSLError as exc:
            self._break(exc)

    def _write_most(self, data: bytes | memoryview) -> bytes | memoryview:
        """Write piece after piece; returns the last one, which is left to do."""
        data = memoryview(data)
        while len(data) > _MOST:
            self._encrypt(data[:_PIECE])
            self._send(self._take())
            data = data[_PIECE:]
        return data

    def can_write_eof(self) -> bool:
        return self._lower.can_write_eof()

    def write_eof(self) -> None:
        """Send close_notify and FIN; what the peer still sends is received.

        Raises:
            OSError: As the transport below.
        """
        if self._output:
            self._notify()
            self._lower.write_eof()

    def close(self) -> None:
        """Close when what was written, and close_notify behind it, has left.

        This may take as long as the peer likes: the caller must have a deadline, and `abort`.
        """
        if self._output:
            self._notify()
        if self._input != _HANDSHAKE:
            self._input = _ENDED
        self._waits = False
        self._lower.close()

    def abort(self) -> None:
        """Close at once, without close_notify."""
        self._output = False
        self._waits = False
        if self._input != _HANDSHAKE:
            self._input = _ENDED
        self._lower.abort()

    def pause_reading(self) -> None:
        self._paused = True
        self._lower.pause_reading()

    def resume_reading(self) -> None:
        if self._paused:
            self._paused = False
            if self._waits:
                self._loop.call_soon(self._catch_up)
        if not self._waits:
            self._lower.resume_reading()

    def get_write_buffer_size(self) -> int:
        """Bytes, encrypted, that wait below."""
        return self._lower.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As asyncio has it; what is not of TLS is asked below."""
        tls = self._object
        if name == "ssl_object":
            return default if tls is None else tls
        if name == "sslcontext":
            return self._context
        if name in ("peercert", "cipher", "compression"):
            if tls is None or tls.version() is None:
                return default
            return tls.getpeercert() if name == "peercert" else getattr(tls, name)()
        return self._lower.get_extra_info(name, default)

    def set_protocol(self, connection: Any, /) -> None:
        self._port = connection
        self._on_data = connection.data_received

    # ------------------------------------------------------------------ between the two

    def _catch_up(self) -> None:
        """Tell what could not be told, then read on."""
        if self._paused or not self._waits:
            return
        self._waits = False
        if self._input == _OPEN:
            held, self._held = self._held, memoryview(b"")
            self._deliver([], held)
        else:
            self._tell_end()
        if not self._paused:
            self._lower.resume_reading()

    def _notify(self) -> None:
        """Send close_notify."""
        self._output = False
        assert self._object is not None
        try:
            self._object.unwrap()
        except SSLError:
            pass  # the peer's own has not come; nobody waits for it
        last = self._take()
        if last:
            self._send(last)

    def _break(self, error: SSLError) -> None:
        """The bytes of an open connection make no sense: send the alert, close."""
        self._input = _ENDED
        self._error = error.with_traceback(None)  # which would hold this frame
        self._on_failure(self, "debug", f"TLS: {_reason(error)}")
        last = self._take()
        if self._output:
            self._output = False
            self._last_word(last)
        self._lower.close()


def _reason(error: SSLError) -> str:
    """An error of OpenSSL in words."""
    if isinstance(error, SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}"
    if not error.reason:
        return " ".join(str(error).split())
    text = error.reason.replace("_", " ").lower()
    _, alert, kind = text.partition(" alert ")
    return f"the peer sent the alert {kind!r}" if alert else text
