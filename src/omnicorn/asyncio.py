"""``from omnicorn.asyncio import serve``: the name by which hypercorn's users know it."""

from __future__ import annotations

from omnicorn.runtime.serving import serve

__all__ = ["serve"]
