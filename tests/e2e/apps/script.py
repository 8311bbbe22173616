"""A program that serves by itself: what ``python script.py`` is to ``omnicorn.run``."""

from __future__ import annotations

import signal
import sys

from plain import app, say

import omnicorn


def on_signal(*_: object) -> None:
    say("my own handler")


def main() -> int:
    if "--late" in sys.argv:
        signal.signal(signal.SIGTERM, on_signal)
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    target = "plain:app" if "--by-name" in sys.argv else app
    code = omnicorn.run(target, port=0, loop=sys.argv[1])
    after = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    say(f"returned {code}")
    say("handlers are as before" if after == before else f"handlers changed: {after}")
    if "--late" in sys.argv:
        signal.raise_signal(signal.SIGTERM)
    return code


if __name__ == "__main__":
    sys.exit(main())
