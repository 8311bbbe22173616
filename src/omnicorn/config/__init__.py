"""Configuration, L1: values and where they come from; never sockets, ASGI or loops.

``options`` holds the one table everything derives from, ``kinds`` what a value may be,
``bind`` the syntax of an address, ``sources`` the merge of flags, environment and file.
"""

from __future__ import annotations

from omnicorn.config.bind import Bind
from omnicorn.config.options import Config
from omnicorn.config.sources import Loaded, load

__all__ = ["Bind", "Config", "Loaded", "load"]
