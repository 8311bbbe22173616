"""Extensions against a table written from the specification."""

from __future__ import annotations

from omnicorn.asgi import extensions


def test_every_extension_of_the_specification_may_be_offered_and_none_must_be() -> None:
    assert extensions.Extensions.__required_keys__ == frozenset()
    assert extensions.Extensions.__optional_keys__ == {
        "tls",
        "http.response.trailers",
        "http.response.early_hint",
        "http.response.pathsend",
        "http.response.zerocopysend",
        "http.response.push",
        "http.response.debug",
        "websocket.http.response",
    }


def test_tls_requires_what_version_0_2_of_the_extension_makes_mandatory() -> None:
    assert extensions.TLSExtension.__required_keys__ == {
        "server_cert",
        "tls_version",
        "cipher_suite",
    }
    assert extensions.TLSExtension.__optional_keys__ == {
        "client_cert_chain",
        "client_cert_name",
        "client_cert_error",
    }
