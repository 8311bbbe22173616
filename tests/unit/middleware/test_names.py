"""The names of the package, which are loaded on first use."""

from __future__ import annotations

import subprocess
import sys

import pytest

from omnicorn import middleware
from omnicorn.toolkit import AsgiToWsgi, WsgiToAsgi


def test_every_name_is_there_and_listed() -> None:
    for name in middleware.__all__:
        assert callable(getattr(middleware, name))
        assert name in dir(middleware)


def test_the_adapters_are_the_toolkits() -> None:
    assert middleware.wsgi_to_asgi is WsgiToAsgi
    assert middleware.asgi_to_wsgi is AsgiToWsgi


def test_another_name_is_none() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Proxyfix'"):
        middleware.Proxyfix  # noqa: B018


def test_one_middleware_does_not_load_the_others_nor_the_server() -> None:
    program = (
        "import sys\n"
        "from omnicorn.middleware import ProxyFix\n"
        "loaded = {name for name in sys.modules if name.startswith('omnicorn.')}\n"
        "unwanted = ('omnicorn.middleware.dispatcher', 'omnicorn.toolkit.wsgi',\n"
        "            'omnicorn.connections', 'omnicorn.runtime', 'omnicorn.transports')\n"
        "assert loaded.isdisjoint(unwanted), loaded\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
