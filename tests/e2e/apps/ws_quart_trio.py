"""The application of ``ws_quart``, of Quart-Trio."""

from __future__ import annotations

from quart_trio import QuartTrio
from ws_quart import make

app = make(QuartTrio)
