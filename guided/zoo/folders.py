"""Where models are looked for.  The only file that reads the environment for it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
SHIPPED = HERE / "shipped"
PUBLIC = HERE / "public"
KITS = HERE / "kits"


def user_folder() -> Path:
    """The user's own models: $GUIDED_MODELS, or ~/.cache/guided/models."""
    named = os.environ.get("GUIDED_MODELS", "")
    if named:
        return Path(named).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if cache else Path.home() / ".cache") / "guided" / "models"


def settle_network(*, online: bool) -> None:
    """Forbid or allow the model hub's libraries to use the network, also if already imported.

    Without ``online`` HF_HUB_OFFLINE is 1, whatever it was; telemetry is off in either case.
    """
    os.environ["HF_HUB_OFFLINE"] = "0" if online else "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    constants = sys.modules.get("huggingface_hub.constants")
    if constants is not None:  # it reads the environment once, when it is imported
        constants.HF_HUB_OFFLINE = not online  # type: ignore[attr-defined]
        constants.HF_HUB_DISABLE_TELEMETRY = True  # type: ignore[attr-defined]
