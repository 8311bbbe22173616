"""For tests that need a real server: `LiveServer`, and the pytest fixture ``live_omnicorn``.

Everything loads on first use: pytest imports this package whenever it starts, for its plugin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omnicorn.testing.live import LiveServer

__all__ = ["LiveServer"]


def __getattr__(name: str) -> object:
    if name != "LiveServer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from omnicorn.testing.live import LiveServer

    globals()[name] = LiveServer
    return LiveServer
