"""The glue of one connection: choose an engine, feed it, flush once, keep its deadline."""
