"""The PROXY protocol, versions 1 and 2: who is behind a proxy that forwards bytes.

Of its specification (haproxy.org, ``proxy-protocol.txt``, 2020/03/05 and later) the receiver's
side, for stream connections.
"""

from omnicorn.protocols.proxy.header import ProxyHeader, read_header
from omnicorn.protocols.proxy.tlvs import ProxyTLS, TLVs

__all__ = ["ProxyHeader", "ProxyTLS", "TLVs", "read_header"]
