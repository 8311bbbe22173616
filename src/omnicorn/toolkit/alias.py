"""The toolkit under asgiref's name, for everything that says ``import asgiref``.

What this file alone decides: which modules stand for asgiref's, and which version they are. A
module of asgiref *is* the toolkit's module of that name, so that both names give the same classes,
locals and threads; it is loaded when it is first imported.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

__all__ = ["VERSION", "install_as_asgiref"]

VERSION: Final = "3.13.0"
"""The version of asgiref whose names, signatures and semantics the toolkit has."""

_MODULES: Final = frozenset(
    {
        "compatibility",
        "current_thread_executor",
        "local",
        "server",
        "sync",
        "testing",
        "timeout",
        "typing",
        "wsgi",
    }
)


def install_as_asgiref() -> None:
    """Let ``import asgiref`` give the toolkit, in this process, from now on.

    To be called before anything imports asgiref: first in the module that makes the application,
    or in ``manage.py``. An asgiref that is installed is left alone, and not used. A second call
    does nothing.

    Raises:
        RuntimeError: asgiref itself was imported already; what it gave out would go on beside
            the toolkit, with threads and locals of its own.
    """
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    if "asgiref" in sys.modules:
        raise RuntimeError(
            "asgiref was imported before install_as_asgiref() was called; call it first, above"
            " the imports of Django, Channels and whatever else uses asgiref"
        )
    sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds ``asgiref`` and its modules; for any other name it knows nothing."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == "asgiref":
            return ModuleSpec(name, _Package(), is_package=True)
        package, _, module = name.partition(".")
        if package == "asgiref" and module in _MODULES:
            return ModuleSpec(name, _Module(module))
        return None


class _Package(Loader):
    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        module.__version__ = VERSION  # type: ignore[attr-defined]


class _Module(Loader):
    def __init__(self, name: str) -> None:
        self._name = name
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = import_module(f"omnicorn.toolkit.{self._name}")
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The import system has just written the alias's specification over the module's own.
        module.__spec__ = self._spec
