"""``manage.py runserver``, with the application of ``ASGI_APPLICATION``.

What this file alone decides: which application is served. All else is Django's own command
(that of staticfiles, where it is installed), with another server inside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.conf import settings
from django.core.management.base import CommandError
from django.core.servers.basehttp import WSGIServer

from omnicorn import __version__
from omnicorn.compat.django.development import DevelopmentServer

if TYPE_CHECKING:
    from argparse import ArgumentParser

if apps.is_installed("django.contrib.staticfiles"):
    from django.contrib.staticfiles.management.commands.runserver import Command as _Runserver
else:
    from django.core.management.commands.runserver import Command as _Runserver


class Command(_Runserver):  # type: ignore[misc]  # Django has no types
    help = "Starts a lightweight web server for development, which serves ASGI."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--noasgi",
            action="store_false",
            dest="use_asgi",
            help="Serve the WSGI application, with Django's own server.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        self.server_cls = DevelopmentServer if options["use_asgi"] else WSGIServer
        super().handle(*args, **options)

    def get_handler(self, *args: Any, **options: Any) -> Any:
        """The application to serve."""
        if not options["use_asgi"]:
            return super().get_handler(*args, **options)
        application = get_application()
        # Options of the command of staticfiles, where that is installed.
        if options.get("use_static_handler") and (settings.DEBUG or options["insecure_serving"]):
            from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler

            return ASGIStaticFilesHandler(application)
        return application

    def on_bind(self, server_port: int) -> None:
        super().on_bind(server_port)
        if self.server_cls is DevelopmentServer:
            self.stdout.write(f"ASGI is served by omnicorn {__version__}.")


def get_application() -> Any:
    """What ``ASGI_APPLICATION`` names, or Django's own ASGI handler where it names nothing.

    Raises:
        CommandError: There is no such object.
    """
    name = getattr(settings, "ASGI_APPLICATION", None)
    if name is None:
        from django.core.asgi import get_asgi_application

        return get_asgi_application()
    from django.utils.module_loading import import_string

    try:
        return import_string(name)
    except ImportError as error:
        raise CommandError(
            f"ASGI_APPLICATION is {name!r}, which cannot be imported: {error}"
        ) from error
