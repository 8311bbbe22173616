"""The aim line of the cases `ws` and `ws-large`: picows, the fastest WebSocket server of Python.

It has no ASGI: no scope, no task, no message; it makes no `str` of text and checks no UTF-8.  A
frame goes back from the buffer it was read into, as its authors' example does it, on uvloop.

Usage: python -m bench.aim PORT
"""

from __future__ import annotations

import sys

import uvloop
from picows import (  # type: ignore[import-not-found]
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    ws_create_server,
)


class Echo(WSListener):  # type: ignore[misc]
    """Sends every frame back."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        transport.send(frame.msg_type, frame.get_payload_as_memoryview())
        if frame.msg_type is WSMsgType.CLOSE:
            transport.disconnect()


def greet(request: WSUpgradeRequest) -> Echo:
    """Say yes to every handshake."""
    return Echo()


async def main(port: int) -> None:
    """Serve until killed."""
    server = await ws_create_server(greet, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
