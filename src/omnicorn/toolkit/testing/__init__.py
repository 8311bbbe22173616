"""Testing ASGI applications without a server: `ApplicationCommunicator`, and clients on top.

`HTTPCommunicator`, `WebSocketCommunicator` and `LifespanManager` run under asyncio and trio,
and so with anyio. They play a server of HTTP & WebSocket 2.5 and Lifespan 2.0, and say what the
application did where it did not do what the test asked for. `ApplicationCommunicator` is
asgiref's, for asyncio.
"""

from omnicorn.toolkit.testing.application import ApplicationCommunicator
from omnicorn.toolkit.testing.conversation import (
    ClientDisconnected,
    CommunicatorError,
    CommunicatorTimeout,
)
from omnicorn.toolkit.testing.http import EXTENSIONS, HTTPCommunicator, HTTPResponse
from omnicorn.toolkit.testing.lifespan import (
    LifespanFailed,
    LifespanManager,
    LifespanNotSupported,
)
from omnicorn.toolkit.testing.websocket import (
    WebSocketAnswer,
    WebSocketClosed,
    WebSocketCommunicator,
)

__all__ = [
    "EXTENSIONS",
    "ApplicationCommunicator",
    "ClientDisconnected",
    "CommunicatorError",
    "CommunicatorTimeout",
    "HTTPCommunicator",
    "HTTPResponse",
    "LifespanFailed",
    "LifespanManager",
    "LifespanNotSupported",
    "WebSocketAnswer",
    "WebSocketClosed",
    "WebSocketCommunicator",
]
