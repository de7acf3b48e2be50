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


def hub_folder() -> Path:
    """The hub's local cache, as its client finds it, without importing that."""
    constants = sys.modules.get("huggingface_hub.constants")
    if constants is not None:
        return Path(str(constants.HF_HUB_CACHE))
    cache = os.environ.get("XDG_CACHE_HOME", "") or "~/.cache"
    home = os.environ.get("HF_HOME", "") or f"{cache}/huggingface"
    own = os.environ.get("HF_HUB_CACHE", "") or os.environ.get("HUGGINGFACE_HUB_CACHE", "")
    return Path(os.path.expandvars(own or f"{home}/hub")).expanduser()


def state_folder() -> Path | None:
    """What guided keeps for this user and never passes on: $XDG_STATE_HOME/guided, by default
    ~/.local/state/guided; None where the user has no home.
    """
    named = os.environ.get("XDG_STATE_HOME", "")
    try:
        return (Path(named) if named else Path.home() / ".local" / "state") / "guided"
    except RuntimeError:
        return None


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
