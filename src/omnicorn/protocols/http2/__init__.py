"""HTTP/2 (RFC 9113), the server's side.

===============  ==========================================================
``engine``       the conversation: what comes, what it means, errors, ends
``writer``       its writing side: windows of responses, whose content leaves next
``blocks``       the peer's field blocks: put together, decoded, remembered
``stream``       one exchange: what may be sent when, what waits for a window
``states``       what a frame means in each state of a stream, as a table
``requests``     a decoded field list to a `Head`, strictly
``responses``    status and fields to a field list, checked
``hpack``        field lists to blocks and back (RFC 7541)
``settings``     what each side asks of the other
``priority``     the ``priority`` field's value (RFC 9218)
``schedule``     the streams that could send, in their order
``guards``       what a peer may do only so often, and how often
``upgrade``      ``Upgrade: h2c``: a request of HTTP/1.1 as stream 1
``codes``        the numbers: frame types, flags, settings, error codes
===============  ==========================================================

Nothing is imported here: a server that never meets HTTP/2 loads none of it.
"""
