"""Sans-IO engines: bytes in, upcalls out; verbs in, bytes out. No I/O, no clock, no ASGI."""
