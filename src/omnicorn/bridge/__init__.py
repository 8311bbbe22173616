"""Streams to ASGI and back, in one place: one module for each scope type, whatever carries it."""
