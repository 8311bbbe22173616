"""One deadline for each connection, one timer for all of them.

A timer in the event loop costs several hundred bytes and a heap operation each time it
moves, and it would move with every request. Here a connection stands in a *slot* (a
quarter of a second wide) no later than its deadline. Moving a deadline further away is
storing a number: when the slot's time comes, the connection is asked again, and moves to
the slot of its present deadline. Only a deadline that comes nearer changes slots at once.

Deadlines are therefore met late by up to one slot, never early.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from omnicorn.ports import Loop, Timer

WIDTH = 0.25
"""Seconds of a slot."""


class Timed(Protocol):
    """Something with a deadline.

    Attributes:
        slot: The slot it stands in; belongs to `Deadlines`. -1: in none.
    """

    slot: int

    def on_deadline(self, now: float) -> float:
        """Act if the deadline has passed; returns when to ask again, infinity for never."""


class Deadlines:
    """The slots of one event loop."""

    __slots__ = ("_loop", "_slots", "_timer", "_timer_slot")

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._slots: dict[int, set[Timed]] = {}
        self._timer: Timer | None = None
        self._timer_slot = -1

    def watch(self, item: Timed, when: float) -> None:
        """See that *item* is asked at *when* (loop time) or before, if it still stands."""
        slot = int(when / WIDTH) + 1
        if item.slot >= 0:
            if item.slot <= slot:
                return
            self.forget(item)
        self._put(item, slot)
        if self._timer is None or slot < self._timer_slot:
            self._arm(slot)

    def forget(self, item: Timed) -> None:
        """*item* needs no deadline any more."""
        members = self._slots.get(item.slot)
        if members is not None:
            members.discard(item)
            if not members:
                del self._slots[item.slot]
        item.slot = -1

    def close(self) -> None:
        """Ask nobody any more; what is watched later is asked again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _put(self, item: Timed, slot: int) -> None:
        item.slot = slot
        members = self._slots.get(slot)
        if members is None:
            self._slots[slot] = {item}
        else:
            members.add(item)

    def _arm(self, slot: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_slot = slot
        self._timer = self._loop.call_at(slot * WIDTH, self._expire)

    def _expire(self) -> None:
        self._timer = None
        now = self._loop.time()
        due = sorted(slot for slot in self._slots if slot * WIDTH <= now)
        try:
            for slot in due:
                # An item may forget itself or others while it is asked.
                for item in tuple(self._slots.get(slot, ())):
                    if item.slot == slot:
                        self._ask(item, now)
        finally:
            # Whatever one item did, the others keep their deadlines. Asking may have armed
            # the timer anew, for a later slot.
            if self._slots:
                nearest = min(self._slots)
                timer: Timer | None = self._timer
                if timer is None or nearest < self._timer_slot:
                    self._arm(nearest)

    def _ask(self, item: Timed, now: float) -> None:
        self.forget(item)
        again = item.on_deadline(now)
        if item.slot < 0 and again < float("inf"):
            self._put(item, max(int(again / WIDTH) + 1, int(now / WIDTH) + 1))
