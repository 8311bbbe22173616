"""Conformance: what suites written by others say of omnicorn.

`python -m conformance` runs the Autobahn WebSocket suite, to which `conformance.echo` is served;
`python -m conformance django` and its like run the suites of those who use asgiref, with the
toolkit in its place.  Nothing is imported here: the server under test imports this package.
"""
