"""What SCGI, uwsgi and FastCGI have in common (RFC 3875): only their framing differs.

================  ==========================================================
``environment``   variables to a `GatewayHead`
``responses``     status and fields to bytes
``engine``        the conversation of those that carry one request a connection
================  ==========================================================
"""

from omnicorn.protocols.cgi.environment import EnvironmentParser, GatewayHead
from omnicorn.protocols.cgi.responses import ResponseEncoder

__all__ = ["EnvironmentParser", "GatewayHead", "ResponseEncoder"]
