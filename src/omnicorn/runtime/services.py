"""From the configuration to what connections share: `make_service`, and nothing else.

Every option that a connection obeys is translated here, once, at the start; connections never
see a `Config`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from omnicorn.connections.service import Http2, Service, Timeouts, WebSockets
from omnicorn.http.limits import Limits
from omnicorn.runtime.interfaces import adapt, explain

if TYPE_CHECKING:
    from omnicorn.config import Config
    from omnicorn.observability.access_log import AccessLog, AccessLogger
    from omnicorn.ports import Loop
    from omnicorn.runtime.interfaces import AnyApplication


def make_service(
    app: AnyApplication,
    loop: Loop,
    config: Config,
    access_log: AccessLog | AccessLogger | None,
) -> Service:
    """Translate the configuration into what connections share.

    Raises:
        ConfigError: The interface of the application cannot be told.
    """
    interface, app = adapt(app, config.interface)
    wsgi = None
    if interface == "wsgi":
        from omnicorn.bridge.wsgi import Wsgi

        wsgi = Wsgi(app, loop, config.threads, config.root_path)
    trusted = None
    if config.proxy_headers and config.forwarded_allow_ips:
        from omnicorn.security.trust import TrustedPeers

        trusted = TrustedPeers(config.forwarded_allow_ips)
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in config.headers]
    if config.hsts is not None:
        headers.append((b"strict-transport-security", config.hsts.encode()))
    return Service(
        app,
        loop,
        limits=Limits(
            line=config.limit_request_line,
            head=config.limit_request_head,
            fields=config.limit_request_fields,
            body=config.limit_request_body,
        ),
        timeouts=Timeouts(
            head=config.timeout_request_head,
            body=config.timeout_body,
            keep_alive=config.timeout_keep_alive,
            write=config.timeout_write,
        ),
        root_path=config.root_path,
        limit_concurrency=config.limit_concurrency,
        access_log=access_log,
        trusted=trusted,
        server_header=config.server_header,
        date_header=config.date_header,
        headers=headers,
        websockets=None
        if config.ws == "none"
        else WebSockets(
            max_size=config.ws_max_size,
            max_queue=config.ws_max_queue,
            ping_interval=config.ws_ping_interval,
            ping_timeout=config.ws_ping_timeout,
            deflate=config.ws_per_message_deflate,
        ),
        http2=Http2(
            enabled=config.http != "1",
            only=config.http == "2",
            max_streams=config.h2_max_concurrent_streams,
            window=config.h2_initial_window,
            stream_window=config.h2_initial_stream_window,
            ping_interval=config.h2_ping_interval,
        ),
        fastcgi_requests=config.fastcgi_max_concurrency,
        wsgi=wsgi,
        explain=partial(explain, interface=interface),
    )
