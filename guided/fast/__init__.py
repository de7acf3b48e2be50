"""Fast CPU kernels: oneDNN on packed weights, bf16 and int8 vision towers, cached text attention.

They stand on operations that torch keeps private, so each has a plain path that gives the same
within rounding, which is taken where an operation is missing, and everywhere with ``GUIDED_FAST=0``
in the environment.
"""

from __future__ import annotations

import os

SWITCH = "GUIDED_FAST"


def enabled() -> bool:
    """Whether fast kernels may be used at all."""
    return os.environ.get(SWITCH, "1") != "0"
