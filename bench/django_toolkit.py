"""The Django site on omnicorn's toolkit, in asgiref's place."""

from omnicorn.toolkit.alias import install_as_asgiref

install_as_asgiref()

from bench.django_site import application  # noqa: E402 - the alias comes first

__all__ = ["application"]
