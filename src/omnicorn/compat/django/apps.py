"""The app's name, and its one check."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig, apps
from django.core.checks import CheckMessage, Error, register

RIVALS = ("django.contrib.staticfiles", "daphne")
"""Apps whose ``runserver`` would be taken in the place of ours, were they first."""


class OmnicornConfig(AppConfig):  # type: ignore[misc]  # Django has no types
    """What Django finds in ``INSTALLED_APPS``."""

    name = "omnicorn.compat.django"
    label = "omnicorn"
    verbose_name = "omnicorn"

    def ready(self) -> None:
        """Register the check."""
        register(stands_first, "staticfiles")


def stands_first(app_configs: Any, **_: Any) -> list[CheckMessage]:
    """Whether ``runserver`` is ours."""
    order = [config.name for config in apps.get_app_configs()]
    ours = order.index(OmnicornConfig.name)
    return [
        Error(
            f"{OmnicornConfig.name} must be listed before {rival} in INSTALLED_APPS.",
            hint="Put it first; otherwise runserver is not omnicorn's.",
            id="omnicorn.E001",
        )
        for rival in RIVALS
        if rival in order[:ours]
    ]
