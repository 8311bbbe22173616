"""PEP 3333 itself: what a WSGI application is given, and what is made of its answer.

What this file alone decides: how a request becomes an environ, how a body that is still arriving
reads as a file, and in what order the parts of a response leave. Nothing here knows who waits for
what: it runs in whatever thread runs the application, and blocks in two callables that it is given,
one that fetches the next piece of the request body, and a `Sink` for the response. A server may
drive it without ASGI.

1. The head leaves with the first block that is not empty, or at the end; until then ``exc_info``
   replaces it.
2. The sink has taken each block before the application is asked for the next one.
3. What an application returned is closed once, whatever happened to the request.
4. Never more content than Content-Length announced; less is the application's error.
5. A list or tuple is not sent, but handed back: who runs the application has it whole.
"""

from __future__ import annotations

import io
import os
import re
import stat
import sys
import tempfile
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol
from wsgiref.util import is_hop_by_hop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import TracebackType

    from omnicorn.asgi import HTTPScope

    Environ = dict[str, Any]
    ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]
    StartResponse = Callable[..., Callable[[bytes], object]]
    WsgiApplication = Callable[[Environ, Any], Iterable[bytes]]
    Head = tuple[int, list[tuple[bytes, bytes]]]

__all__ = [
    "SAME_FOR_ALL",
    "DuplicateHeaderLimitExceeded",
    "FilePart",
    "FileWrapper",
    "InputStream",
    "Sink",
    "WsgiResponse",
    "add_headers",
    "build_environ",
    "native",
]

BLOCK: Final = 65536
"""Bytes read from a file at once."""

# ---------------------------------------------------------------------------- environ


class DuplicateHeaderLimitExceeded(ValueError):
    """A request repeats one header more often than ``duplicate_header_limit`` allows."""


SAME_FOR_ALL: Environ = {
    "wsgi.version": (1, 0),
    # A thread for each request; there may be other processes, nobody can tell.
    "wsgi.multithread": True,
    "wsgi.multiprocess": True,
    "wsgi.run_once": False,
    # Not of PEP 3333: `read()` ends with the body, also where no CONTENT_LENGTH tells its size.
    "wsgi.input_terminated": True,
}

_variables: dict[bytes, str] = {}  # header names seen -> their variables; bounded


def _variable(name: bytes) -> str:
    """The variable of a header; empty for one that may not have any."""
    if b"_" in name:
        variable = ""  # else `x_y` could pass for `x-y`, which a proxy has vouched for
    elif name.lower() == b"transfer-encoding":
        variable = ""  # RFC 3875 §4.2: it has been removed; Bottle would decode it once more
    else:
        variable = name.upper().decode("latin-1").replace("-", "_")
        if variable not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            variable = "HTTP_" + variable
    if len(_variables) < 1024 and len(name) <= 64:
        _variables[name] = variable
    return variable


def native(text: str) -> str:
    """PEP 3333's "bytes as unicode": each character is one byte of the UTF-8 form."""
    if text.isascii():
        return text
    return text.encode("utf-8", "surrogateescape").decode("latin-1")


def build_environ(
    scope: HTTPScope, body: Any, duplicate_header_limit: int | None = None
) -> Environ:
    """What a WSGI application is told about a request (PEP 3333, "environ Variables").

    Beyond the PEP: REMOTE_ADDR and REMOTE_PORT, REQUEST_URI (the target as it was received) and
    ``wsgi.input_terminated``.

    Args:
        scope: An ASGI http scope.
        body: Becomes ``wsgi.input``.
        duplicate_header_limit: How often one header may come; None, the default, for any number.

    Raises:
        DuplicateHeaderLimitExceeded: A header comes more often.
    """
    root = scope.get("root_path", "").rstrip("/")
    path = scope["path"]
    # Only at a boundary: `/basement` is not in `/base`. A server that strips the root itself
    # gives a path that is not below it either.
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/"):
        path = path[len(root) :]
    elif path == "*":
        path = ""  # PEP 3333: PATH_INFO is a path or empty; the asterisk of OPTIONS is none
    query = scope["query_string"].decode("latin-1")
    environ = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": native(root),
        "PATH_INFO": native(path),
        "QUERY_STRING": query,
        "SERVER_PROTOCOL": "HTTP/" + scope["http_version"],
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        **SAME_FOR_ALL,
        "wsgi.url_scheme": scope.get("scheme", "http"),
        "wsgi.input": body,
        "wsgi.errors": sys.stderr,
        "wsgi.file_wrapper": FileWrapper,
    }
    raw_path = scope.get("raw_path")
    if raw_path:
        target = raw_path.decode("latin-1")
        environ["REQUEST_URI"] = f"{target}?{query}" if query else target
    server = scope.get("server")
    if server:
        environ["SERVER_NAME"] = server[0]
        environ["SERVER_PORT"] = str(server[1] or 0)  # a unix socket has no port
    client = scope.get("client")
    if client:
        environ["REMOTE_ADDR"] = client[0]
        environ["REMOTE_PORT"] = str(client[1])
    add_headers(environ, scope["headers"], duplicate_header_limit)
    return environ


def add_headers(
    environ: Environ,
    headers: Iterable[tuple[bytes, bytes]],
    duplicate_header_limit: int | None = None,
) -> None:
    """Put a request's headers into its environ; for the arguments see `build_environ`."""
    repeated: dict[str, list[str]] = {}
    for name, value in headers:
        variable = _variables.get(name)
        if variable is None:
            variable = _variable(name)
        if not variable:
            continue
        text = value.decode("latin-1")
        if variable not in environ:
            environ[variable] = text
        elif variable in repeated:
            repeated[variable].append(text)
        else:
            repeated[variable] = [environ[variable], text]
    for variable, values in repeated.items():
        if duplicate_header_limit is not None and len(values) > duplicate_header_limit:
            raise DuplicateHeaderLimitExceeded(
                f"the request has {len(values)} headers for {variable}; duplicate_header_limit "
                f"allows {duplicate_header_limit}"
            )
        # RFC 9113 §8.2.3: cookie crumbs are put together with "; ", all else RFC 9110 §5.3.
        environ[variable] = ("; " if variable == "HTTP_COOKIE" else ",").join(values)


# ---------------------------------------------------------------------------- the request body


class InputStream(io.BufferedIOBase):
    """``wsgi.input`` of a body that is still arriving; holds one piece of it.

    Args:
        pull: Waits for the next piece; ``b""`` at the end of the body. What it raises (an OSError
            if the client left) comes out of every method here.
        first: A piece that has arrived already.
    """

    def __init__(self, pull: Callable[[], bytes], first: bytes = b"") -> None:
        self._pull = pull
        self._piece = first
        self._offset = 0
        self._ended = False

    def _fill(self) -> bool:
        """Have a piece with something left in it; False at the end of the body."""
        if self._offset < len(self._piece):
            return True
        if self._ended:
            return False
        self._piece = b""
        self._offset = 0
        self._piece = self._pull()
        self._ended = not self._piece
        return not self._ended

    def _take(self, stop: int) -> bytes:
        start = self._offset
        self._offset = stop
        if start == 0 and stop == len(self._piece):
            return self._piece
        return self._piece[start:stop]

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """*size* bytes, fewer only at the end of the body; all of it without a size."""
        left = sys.maxsize if size is None or size < 0 else size
        taken: list[bytes] = []
        while left and self._fill():
            data = self._take(min(len(self._piece), self._offset + left))
            left -= len(data)
            taken.append(data)
        return taken[0] if len(taken) == 1 else b"".join(taken)

    def read1(self, size: int = -1, /) -> bytes:
        """What is there, at most *size* bytes; waits only if nothing is."""
        if not size or not self._fill():
            return b""
        stop = len(self._piece)
        return self._take(stop if size < 0 else min(stop, self._offset + size))

    def readline(self, size: int | None = -1, /) -> bytes:
        """A line with its end, or its first *size* bytes."""
        left = sys.maxsize if size is None or size < 0 else size
        taken: list[bytes] = []
        while left and self._fill():
            stop = min(len(self._piece), self._offset + left)
            newline = self._piece.find(b"\n", self._offset, stop)
            data = self._take(stop if newline < 0 else newline + 1)
            taken.append(data)
            if newline >= 0:
                break
            left -= len(data)
        return taken[0] if len(taken) == 1 else b"".join(taken)


# ---------------------------------------------------------------------------- files

_PLAIN_FILES = (io.FileIO, io.BufferedReader, io.BufferedRandom)


class FileWrapper:
    """``wsgi.file_wrapper``: a file as a response body.

    Returned by an application as it is, it lets the server send a file that is open on the file
    system without reading it.

    Args:
        filelike: Anything with ``read(size)``; its ``close``, if it has one, is called at the end.
        block_size: Bytes of a block, if that is more than 64 KiB; else it is 64 KiB.
    """

    __slots__ = ("block_size", "filelike")

    def __init__(self, filelike: Any, block_size: int = 8192) -> None:
        self.filelike = filelike
        self.block_size = block_size

    def __iter__(self) -> FileWrapper:
        return self

    def __next__(self) -> bytes:
        # A block costs a trip to the event loop, whatever its size.
        data: bytes = self.filelike.read(max(self.block_size, BLOCK))
        if data:
            return data
        raise StopIteration

    def close(self) -> None:
        close = getattr(self.filelike, "close", None)
        if close is not None:
            close()


class FilePart(NamedTuple):
    """A part of an open file.

    Attributes:
        file: The file's descriptor.
        offset: Where the part begins, in bytes.
        size: Bytes in it.
        path: An absolute path of the same file, if the part is all of it.
    """

    file: int
    offset: int
    size: int
    path: str | None


def _file_part(filelike: Any) -> FilePart | None:
    """What is left to read of a file; None for anything but a plain one.

    By type, because ``fileno()`` proves nothing: gzip's files have that of the compressed one.
    """
    if type(filelike) is tempfile._TemporaryFileWrapper:
        filelike = filelike.file
    raw = getattr(filelike, "raw", filelike)
    if type(raw) is not io.FileIO or type(filelike) not in _PLAIN_FILES:
        return None
    try:
        number = raw.fileno()
        status = os.fstat(number)
        if not stat.S_ISREG(status.st_mode) or not raw.readable():
            return None
        offset = filelike.tell()
    except (OSError, ValueError):  # closed, among others: reading it will tell
        return None
    path = raw.name
    if offset or not isinstance(path, str) or not os.path.isabs(path):
        path = None
    else:
        try:
            path = path if os.path.samestat(os.stat(path), status) else None
        except OSError:
            path = None  # deleted since
    return FilePart(number, offset, max(0, status.st_size - offset), path)


# ---------------------------------------------------------------------------- the response


class Sink(Protocol):
    """Where a response goes. Called in the application's thread; may block, may raise."""

    def send(self, head: Head | None, blocks: Sequence[bytes], end: bool) -> None:
        """Take the head, if it is still to be sent, and blocks; none of them is empty.

        Returns once there is room for more. With *end* the response is complete, and nothing
        has to be waited for.
        """

    def send_file(self, head: Head | None, part: FilePart) -> bool:
        """Send a file to end the response, and return when done with it.

        False, and nothing sent, if that cannot be done without reading it.
        """


_NO_CONTENT = (204, 304)
_FORBIDDEN = re.compile("[\0\r\n]")

# What was checked before, and what became of it; both bounded.
_codes: dict[str, int] = {}
_pairs: dict[tuple[str, str], tuple[bytes, bytes]] = {}


class WsgiResponse:
    """``start_response`` and ``write`` of one request, and the loop over the blocks.

    Args:
        sink: Where the response goes.
        method: The request's; a response to HEAD may lack the content that it announces.

    Attributes:
        started: The head has been handed to the sink.
    """

    __slots__ = ("_head", "_is_head", "_length", "_sent", "_sink", "started")

    def __init__(self, sink: Sink, method: str = "GET") -> None:
        self.started = False
        self._sink = sink
        self._is_head = method == "HEAD"
        self._head: Head | None = None
        self._length: int | None = None  # as announced by content-length
        self._sent = 0

    def start_response(
        self,
        status: str,
        response_headers: Iterable[Sequence[str]],
        exc_info: ExcInfo | None = None,
    ) -> Callable[[bytes], None]:
        """PEP 3333's ``start_response``; a status without a reason will do.

        Returns:
            ``write``, which returns when its block was taken.

        Raises:
            ValueError: A second call without *exc_info*; a status or header that is malformed,
                is not latin-1 or is the server's to send (PEP 3333, "Other HTTP Features").
            TypeError: Status, names and values are native strings.
            BaseException: That of *exc_info*, if the head has been sent.
        """
        if exc_info:
            try:
                if self.started:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # PEP 3333: no cycle through the traceback
        elif self._head is not None:
            raise ValueError(
                "start_response was called a second time without exc_info: only an error may "
                "replace a response that was begun"
            )
        code = _codes.get(status) if type(status) is str else None
        if code is None:
            code = _status_code(status)
        headers = []
        length = None
        header: Any
        for header in response_headers:
            try:
                known = _pairs.get(header)
            except TypeError:  # a list, or something in it that is no str
                known = None
            if known is not None:
                headers.append(known)
                continue
            try:
                name, value = header
                lowered = name.lower()
                if lowered == "content-length" and _is_number(value):
                    length = int(value)
                    headers.append((b"content-length", value.encode()))
                    continue
                is_forbidden = _FORBIDDEN.search(name) or _FORBIDDEN.search(value)
            except (TypeError, ValueError, AttributeError):
                raise TypeError(f"a header is a pair of str, not {header!r:.80}") from None
            if is_hop_by_hop(lowered):
                raise ValueError(
                    f"the header {name!r} is for the server alone to send: it concerns the "
                    "connection, which a WSGI application knows nothing of; remove it"
                )
            if is_forbidden:
                raise ValueError(f"the header {name!r} contains a line break or NUL: {value!r:.80}")
            try:
                pair = lowered.encode("latin-1"), value.encode("latin-1")
            except UnicodeEncodeError:
                raise ValueError(
                    f"the header {name!r} is not latin-1: {value!r:.80}; encode it (RFC 8187, "
                    "RFC 2047), or pass UTF-8 as value.encode().decode('latin-1')"
                ) from None
            headers.append(pair)
            if lowered == "content-length":
                length = _content_length(value)
            elif len(name) + len(value) <= 128 and type(header) is tuple:
                if len(_pairs) >= 512:
                    _pairs.clear()
                _pairs[header] = pair
        self._head = code, headers
        self._length = length
        return self.write

    def write(self, block: bytes) -> None:
        """Send a block; returns when it was taken.

        Raises:
            ValueError: It goes past the announced Content-Length; what fits was sent.
            TypeError: It is not bytes.
            RuntimeError: ``start_response`` has not been called.
        """
        block = _as_block(block)
        left = sys.maxsize if self._length is None else self._length - self._sent
        if block and left:
            self._sent += min(left, len(block))
            self._sink.send(self._take_head(), (block[:left],), False)
        if len(block) > left:
            raise ValueError(f"write() goes past the announced Content-Length of {self._length}")

    def run(
        self,
        application: WsgiApplication,
        environ: Environ,
        start_response: StartResponse | None = None,
    ) -> tuple[Head | None, list[bytes]] | None:
        """Call an application, send what it returns, and close that.

        Args:
            application: A WSGI application.
            environ: From `build_environ`.
            start_response: What it gets in place of this object's own.

        Returns:
            What is left to be sent and ends the response, if that needs no thread: head, blocks.

        Raises:
            RuntimeError: No ``start_response``, or less content than announced.
            TypeError: What was returned is no iterable of bytes.
            BaseException: Whatever the application raises, or the sink.
        """
        iterable = application(environ, start_response or self.start_response)
        if type(iterable) is list or type(iterable) is tuple:
            # All of it is there, and nothing is to be closed.
            blocks = self._clamped(iterable)
            self._check_length()
            return self._take_head(), blocks
        try:
            if type(iterable) is not FileWrapper or not self._send_file(iterable):
                self._send_blocks(iterable)
        finally:
            close = getattr(iterable, "close", None)
            if close is not None:
                close()
        return None

    def _take_head(self) -> Head | None:
        if self.started:
            return None
        if self._head is None:
            raise RuntimeError(
                "the WSGI application did not call start_response before the first block of its "
                "response, nor to the end"
            )
        self.started = True
        return self._head

    def _has_no_content(self) -> bool:
        """No content follows, whatever the fields say (RFC 9110 §6.4.1)."""
        return self._is_head or (self._head is not None and self._head[0] in _NO_CONTENT)

    def _check_length(self) -> None:
        length = self._length
        if length is not None and self._sent < length and not self._has_no_content():
            raise RuntimeError(
                f"the WSGI application announced Content-Length {length}, but its response has "
                f"{self._sent} bytes"
            )

    def _clamped(self, iterable: Sequence[bytes]) -> list[bytes]:
        """All blocks but the empty ones, up to the announced length."""
        blocks = []
        for block in iterable:
            if type(block) is not bytes:
                block = _as_block(block)
            if self._length is not None:
                block = block[: self._length - self._sent]
            if block:
                self._sent += len(block)
                blocks.append(block)
        return blocks

    def _send_blocks(self, iterable: Iterable[bytes]) -> None:
        try:
            iterator = iter(iterable)
        except TypeError as error:
            raise TypeError(
                f"the WSGI application returned {iterable!r:.80}, not an iterable of bytes"
            ) from error
        send = self._sink.send
        for block in iterator:
            if type(block) is not bytes:
                block = _as_block(block)
            if not block:
                continue  # PEP 3333: the head waits for a block that is not empty
            length = self._length
            if length is None:
                self._sent += len(block)
                send(self._take_head(), (block,), False)
                continue
            left = length - self._sent
            if len(block) >= left:
                # "The server should ... stop iterating over the response when enough data has
                # been sent": the application may be slow to find out that it has no more.
                self._sent = length
                send(self._take_head(), (block[:left],) if left else (), True)
                return
            self._sent += len(block)
            send(self._take_head(), (block,), False)
        self._check_length()
        send(self._take_head(), (), True)

    def _send_file(self, wrapper: FileWrapper) -> bool:
        """Send a file in one go; False if its blocks have to be read."""
        part = _file_part(wrapper.filelike)
        if part is None or self._head is None:
            return False
        if self._length is None:
            if not self.started and self._head[0] not in _NO_CONTENT:
                self._length = part.size
                self._head[1].append((b"content-length", b"%d" % part.size))
        else:
            left = self._length - self._sent
            part = part._replace(size=left, path=None) if part.size > left else part
        if self._has_no_content():
            self._sink.send(self._take_head(), (), True)
            return True
        if self._length is not None and part.size < self._length - self._sent:
            self._sent += part.size
            self._check_length()
        if not part.size or not self._sink.send_file(None if self.started else self._head, part):
            return False
        self.started = True
        return True


def _status_code(status: str) -> int:
    if not isinstance(status, str):
        raise TypeError(f"a status is a str such as '200 OK', not {status!r:.80}")
    code = status[:3]
    if len(code) == 3 and code.isascii() and code.isdigit() and status[3:4] in ("", " "):
        number = int(code)
        if len(_codes) < 128 and len(status) <= 64:
            _codes[status] = number
        return number
    raise ValueError(f"a status is three digits and a reason, such as '200 OK', not {status!r:.80}")


def _is_number(value: object) -> bool:
    """Whether it is a number as it usually comes, neither spaced nor absurdly long."""
    return type(value) is str and len(value) < 20 and value.isdigit() and value.isascii()


def _content_length(value: str) -> int:
    digits = value.strip()
    if digits.isascii() and digits.isdigit():
        return int(digits)
    raise ValueError(f"Content-Length is a number of bytes, not {value!r:.80}")


def _as_block(block: Any) -> bytes:
    if isinstance(block, (bytes, bytearray, memoryview)):
        return bytes(block)
    hint = {str: "; encode it", int: "; return [b'...'], a list of blocks"}.get(type(block), "")
    raise TypeError(f"a block of a WSGI response is bytes, not {block!r:.80}{hint}")
