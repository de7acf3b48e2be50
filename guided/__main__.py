"""``python -m guided``: the same as the command ``guided``."""

from __future__ import annotations

import sys

from guided.cli import main

if __name__ == "__main__":
    sys.exit(main())
