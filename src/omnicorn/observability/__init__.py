"""What people see of a running server; L1: an access log, and the set-up of logging.

Import from the modules: ``access_log`` (formats, batching), ``logs`` (handlers, rate limits).
"""
