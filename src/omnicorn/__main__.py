"""``python -m omnicorn`` is the command line."""

from __future__ import annotations

import sys

from omnicorn.runtime.cli import main

if __name__ == "__main__":
    sys.exit(main())
