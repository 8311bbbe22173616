"""How an engine's pieces become writes: small ones joined, large ones as they are.

Not by the transports' ``writelines``: asyncio's forgot to pause us in 3.12 and 3.13
(CVE-2024-12254).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from omnicorn.ports import HIGH_WATER

if TYPE_CHECKING:
    from omnicorn.ports import Transport


def write_pieces(transport: Transport, pieces: list[bytes], pending: int) -> None:
    """Write *pieces*, about *pending* bytes, in order."""
    if pending <= HIGH_WATER:
        transport.write(b"".join(pieces))
        return
    small: list[bytes] = []
    for piece in pieces:
        if len(piece) < HIGH_WATER:
            small.append(piece)
            continue
        if small:
            transport.write(b"".join(small))
            small.clear()
        transport.write(piece)
    if small:
        transport.write(b"".join(small))
