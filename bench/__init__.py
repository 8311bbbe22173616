"""The benchmark: omnicorn and its peers, on one core each, taking turns.

`python -m bench` measures; `bench.apps` is what the servers serve.  Nothing is imported here:
every server under test imports this package, and must not pay for the harness.
"""
