"""Conformance: what suites written by others say of omnicorn.

`python -m conformance` runs the Autobahn WebSocket suite; `conformance.echo` is what is served to
it.  Nothing is imported here: the server under test imports this package.
"""
