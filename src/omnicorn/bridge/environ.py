"""The environ of a WSGI request (PEP 3333), made from its head as `scope` makes ASGI's.

Every request gets a dict of its own, because applications change it. To copy a dict is much
faster than to fill one, so a head that comes again brings a template of its environ. What PEP 3333
asks for whoever serves stands in `toolkit.pep3333`; what becomes of a request is the same here as
by way of its ASGI scope and `build_environ`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from omnicorn.http.target import encode_path
from omnicorn.toolkit.pep3333 import SAME_FOR_ALL, FileWrapper, add_headers, native

if TYPE_CHECKING:
    from omnicorn.bridge.scope import Address, ServerAddress
    from omnicorn.ports import RequestHead
    from omnicorn.toolkit.pep3333 import Environ

__all__ = ["wsgi_environ"]


def wsgi_environ(
    head: RequestHead,
    scheme: str,
    client: Address | None,
    server: ServerAddress | None,
    root_path: str,
    body: Any,
) -> Environ:
    """Build the environ of one request.

    Args:
        head: The request.
        scheme: ``"http"`` or ``"https"``.
        client: ``(host, port)``, or None behind an unnamed unix socket.
        server: ``(host, port)``, or ``(path, None)`` for a unix socket.
        root_path: The prefix the application is mounted at, the same for all uses of *head*,
            unless that has one itself.
        body: Becomes ``wsgi.input``.
    """
    template = head.environ
    if template:
        environ = template.copy()
    else:
        environ = _environ_template(head, root_path)
        # Worth keeping for the second of equal requests; most heads have none.
        head.environ = {} if template is None else environ.copy()
    environ["wsgi.url_scheme"] = scheme
    environ["wsgi.input"] = body
    environ["wsgi.errors"] = sys.stderr
    if client is not None:
        environ["REMOTE_ADDR"] = client[0]
        environ["REMOTE_PORT"] = str(client[1])
    if server is not None:
        environ["SERVER_NAME"] = server[0]
        environ["SERVER_PORT"] = str(server[1] or 0)  # a unix socket has no port
    return environ


def _environ_template(head: RequestHead, root_path: str) -> Environ:
    """What the environs of equal requests have in common."""
    query = head.query.decode("latin-1")
    target = head.raw_path
    path = head.path
    if path == "*":
        path = ""  # as `build_environ`
    elif head.root_path is not None:
        root_path = head.root_path
        path = path.removeprefix(root_path)
    elif root_path:
        target = encode_path(root_path) + target
    uri = target.decode("latin-1")
    environ: Environ = {
        "REQUEST_METHOD": head.method,
        "SCRIPT_NAME": native(root_path),
        "PATH_INFO": native(path),
        "QUERY_STRING": query,
        "REQUEST_URI": f"{uri}?{query}" if query else uri,
        "SERVER_PROTOCOL": "HTTP/" + head.version,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        **SAME_FOR_ALL,
        "wsgi.file_wrapper": FileWrapper,
    }
    add_headers(environ, head.headers)
    return environ
