"""Which protocol a new connection speaks."""

from __future__ import annotations

from typing import Any

import pytest

from omnicorn.connections import accept
from omnicorn.connections.service import Http2, Service
from omnicorn.transports.inproc import ManualLoop


class Agreed:
    """A transport whose handshake agreed on a protocol."""

    def __init__(self, protocol: str | None) -> None:
        self._protocol = protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self if name == "ssl_object" else default

    def selected_alpn_protocol(self) -> str | None:
        return self._protocol


def service(http2: Http2) -> Service:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("no request was made")

    return Service(app, ManualLoop(), http2=http2)


BOTH, ONE, TWO = Http2(), Http2(enabled=False), Http2(only=True)


@pytest.mark.parametrize(
    ("http2", "protocol", "made"),
    [
        (BOTH, "h2", "Http2Connection"),
        (BOTH, "http/1.1", "Http1Connection"),
        (BOTH, None, "Http1Connection"),
        (ONE, "http/1.1", "Http1Connection"),
        (ONE, None, "Http1Connection"),
        (TWO, "h2", "Http2Connection"),
        (TWO, None, "Http2Connection"),
    ],
)
def test_over_tls_the_handshake_decides(http2: Http2, protocol: str | None, made: str) -> None:
    connection = accept.secure(service(http2))(Agreed(protocol))

    assert type(connection).__name__ == made


@pytest.mark.parametrize(
    ("http2", "made"),
    [(BOTH, "Http1Connection"), (ONE, "Http1Connection"), (TWO, "Http2Connection")],
)
def test_a_plain_connection_begins_with_http_1_if_that_is_spoken(http2: Http2, made: str) -> None:
    connection = accept.plain(service(http2))()

    assert type(connection).__name__ == made


@pytest.mark.parametrize(
    ("http2", "offered"),
    [(BOTH, ("h2", "http/1.1")), (ONE, ("http/1.1",)), (TWO, ("h2",))],
)
def test_what_is_spoken_is_offered(http2: Http2, offered: tuple[str, ...]) -> None:
    assert accept.alpn(service(http2)) == offered
