"""``from omnicorn.trio import serve``: the name by which hypercorn's users know it.

urls = await nursery.start(serve, app, config)
"""

from __future__ import annotations

from omnicorn.runtime.serving import serve

__all__ = ["serve"]
