"""The application of ``on_quart``, of Quart-Trio."""

from __future__ import annotations

from on_quart import make
from quart_trio import QuartTrio

app = make(QuartTrio)
