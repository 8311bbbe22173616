"""HPACK (RFC 7541): header lists to blocks and back.

===============  ==========================================================
``decoder``      a peer's blocks to lists, within limits
``encoder``      our lists to blocks; what goes into the peer's table
``table``        the static table, and the dynamic one behind it
``primitives``   integers and string literals; the memory of strings
``huffman``      the Huffman code
===============  ==========================================================
"""

from omnicorn.protocols.http2.hpack.decoder import Decoder
from omnicorn.protocols.http2.hpack.encoder import Encoder
from omnicorn.protocols.http2.hpack.primitives import Strings

__all__ = ["Decoder", "Encoder", "Strings"]
