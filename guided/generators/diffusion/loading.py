"""Load a diffusion model from a folder in the format of diffusers."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

from guided.core.device import Device
from guided.errors import CannotDo, CorruptWeights, library_message
from guided.generators.diffusion.folder import COPY, read_index
from guided.generators.diffusion.model import Diffusion
from guided.generators.diffusion.pipeline import OPTIONAL, GuidedPipeline
from guided.generators.diffusion.schedulers import SCHEDULERS
from guided.zoo.gate import snapshot_of
from guided.zoo.gate_calls import load_pipeline
from guided.zoo.packing import check_finite


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No bars of the libraries while a model loads, nor notes on names that changed there."""
    from diffusers.utils import logging as theirs
    from transformers.utils import logging as others

    shown = others.is_progress_bar_enabled()
    theirs.disable_progress_bar()
    others.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        theirs.enable_progress_bar()
        if shown:
            others.enable_progress_bar()


def load_diffusion(
    folder: str | Path, device: Device | None = None, *, name: str = ""
) -> Diffusion:
    """The model in a folder of diffusers' form (of any family, or saved by this package).

    Raises:
        MissingWeights: a component that is not there; it is named.
        UnsafeWeights: a component of an unknown class, or weights that are pickled.
        CorruptWeights: files that do not fit together, or weights that are not finite.
    """
    place = snapshot_of(Path(folder))
    index = read_index(place)
    _known_scheduler(place, index.parts["scheduler"][1])
    device = device or Device()
    settings: dict[str, Any] = {part: None for part in OPTIONAL if part not in index.parts}
    settings |= index.family.settings(index.pipeline_class)
    if index.variant:
        settings["variant"] = index.variant
    try:
        with quiet():
            pipe = load_pipeline(
                GuidedPipeline, place, index.parts, torch_dtype=device.dtype, **settings
            )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        reason = library_message(error)
        raise CorruptWeights(f"{place} cannot be loaded: {reason}.", hint=COPY) from error
    check_weights(pipe, place)
    return Diffusion(pipe, name=name or place.name, device=device)


def check_weights(pipe: GuidedPipeline, folder: Path) -> None:
    """Accept a pipeline from a folder whose weights are all finite.

    Raises:
        CorruptWeights: NaN or infinity; the part and the tensor are named.
    """
    for part, net in pipe.components.items():
        if isinstance(net, nn.Module):
            check_finite(net.state_dict(), str(folder / part))


def _known_scheduler(folder: Path, kind: str) -> None:
    """Raise for a class that diffusers does not have."""
    import diffusers

    if not hasattr(diffusers, kind):
        raise CannotDo(
            f"{folder} wants the scheduler {kind}, which diffusers {diffusers.__version__} does "
            f"not have; supported: {', '.join(SCHEDULERS.values())}.",
            hint="Write one of these into its model_index.json.",
        )
