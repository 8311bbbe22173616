"""Guessing what a person meant by a name that does not exist.

One place decides how near a name must be to be worth suggesting. ``difflib`` is
imported only once something is wrong already, so a good start never pays for it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def nearest(wrong: str, names: Iterable[str]) -> str | None:
    """Return the name most like `wrong`, or None when nothing is near enough."""
    from difflib import get_close_matches

    found = get_close_matches(wrong, list(names), n=1, cutoff=0.7)
    return found[0] if found else None


def did_you_mean(wrong: str, names: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` to end a sentence with, or nothing."""
    name = nearest(wrong, names)
    return f"; did you mean {name!r}?" if name else ""
