"""How much a peer may send before it is refused; `runtime` fills this from the configuration."""

from __future__ import annotations

from typing import NamedTuple


class Limits(NamedTuple):
    """Sizes in bytes, counts in fields.

    Precedents: nginx 8 KiB a line, 32 KiB a head; Apache 8190 a line, 100 fields; Node
    16 KiB a head; Go 1 MiB a head.
    """

    line: int = 8192
    """The request line; 414 past it."""
    head: int = 65536
    """Request line, fields and the empty line; also a trailer section. 431 past it."""
    fields: int = 128
    """Field lines of a head or of a trailer section; 431 past it."""
    body: int | None = None
    """Content after decoding; 413 past it. None: no limit."""
