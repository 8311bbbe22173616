"""The applications of `ws_channels` and `on_django`, with the toolkit in asgiref's place."""

from __future__ import annotations

import sys

from omnicorn.toolkit.alias import install_as_asgiref

install_as_asgiref()


def channels() -> object:
    from ws_channels import app

    return checked(app)


def django() -> object:
    from on_django import app

    return checked(app)


def checked(app: object) -> object:
    assert sys.modules["asgiref.sync"].__name__ == "omnicorn.toolkit.sync"
    return app
