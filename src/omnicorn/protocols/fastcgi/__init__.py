"""FastCGI 1.0 (fastcgi-archives.github.io, 1996), the application's side, in the Responder role.

================  ==========================================================
``records``       what a record is, and the encodings inside of it
``stream``        one request and its response
``engine``        the conversation: which requests there are, what may come
================  ==========================================================
"""

from omnicorn.protocols.fastcgi.engine import FastCGIEngine
from omnicorn.protocols.fastcgi.records import split_params
from omnicorn.protocols.fastcgi.stream import FastCGIStream

__all__ = ["FastCGIEngine", "FastCGIStream", "split_params"]
