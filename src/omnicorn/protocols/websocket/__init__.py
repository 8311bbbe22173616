"""WebSocket (RFC 6455) with permessage-deflate (RFC 7692), the server's side.

===============  ==========================================================
``engine``       the conversation: messages, pings, closing, failing
``frames``       frame heads and the contents of close frames
``handshake``    what a request offers, and what accepts or refuses it
``deflate``      the extension: agreed parameters, compression both ways
``masking``      the key's bytes XOR the content's
===============  ==========================================================

The engine sees bytes in and bytes out; what carries them (HTTP/1.1 after its upgrade, a
stream of HTTP/2 or HTTP/3, a gateway's tunnel) is not its concern.
"""

from omnicorn.protocols.websocket.engine import WebSocketEngine
from omnicorn.protocols.websocket.handshake import Offer, parse_offer

__all__ = ["Offer", "WebSocketEngine", "parse_offer"]
