"""HTTP/1.0 and HTTP/1.1 (RFC 9112), the server's side.

===============  ==========================================================
``engine``       the conversation: whose turn it is, keep-alive, errors
``states``       the two state machines, as tables
``requests``     request line and header lines to a `RequestHead`
``chunked``      the chunked transfer coding, decoded
``responses``    status and fields to bytes
===============  ==========================================================
"""

from omnicorn.protocols.http1.engine import Http1Engine
from omnicorn.protocols.http1.requests import RequestParser
from omnicorn.protocols.http1.responses import ResponseEncoder

__all__ = ["Http1Engine", "RequestParser", "ResponseEncoder"]
