"""From the state dicts people publish to a StyleGAN2: sizes are read off the tensors' shapes.

Two layouts: the ``g_ema`` one (names as in guided.nets.stylegan2) and that of NVIDIA's ADA and
StyleGAN3 repositories (``mapping.fc0``, ``synthesis.b8.conv0``).  The second is a renaming with
reshapes; no kernel is flipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from torch import Tensor

from guided.errors import CannotDo, CorruptWeights
from guided.nets.loading import load_exactly
from guided.nets.stylegan2 import StyleGAN2, StyleGAN2Shape

State = Mapping[str, Tensor]


def build_stylegan2(state: State) -> StyleGAN2:
    """The generator of a ``g_ema`` or NVIDIA-named state dict, loaded strictly.

    Only fixed noise maps and filter kernels may be missing; they get their usual values.

    Raises:
        CorruptWeights: other names or shapes; the message lists them.
        CannotDo: a class-conditional or residual NVIDIA generator.
    """
    if is_nvidia(state):
        state = from_nvidia(state)
    net = StyleGAN2(read_shape(state))
    load_exactly(net, state, "a StyleGAN2 generator", optional=r"noises\.|\.kernel$")
    return net


def read_shape(state: State) -> StyleGAN2Shape:
    """The sizes of a ``g_ema`` state dict.

    Raises:
        CorruptWeights: no StyleGAN2 in it; the message names the keys that were looked for.
    """
    needed = ("style.1.weight", "input.input", "conv1.conv.weight", "to_rgb1.conv.weight")
    missing = [key for key in needed if key not in state]
    if missing:
        raise CorruptWeights(
            f"This is no StyleGAN2 generator: it lacks {', '.join(missing)}; "
            f"it holds {_some(state)}.",
            hint="Expected is the `g_ema` state dict or a network pickle of StyleGAN2-ADA.",
        )
    depth = _count(state, r"style\.(\d+)\.weight")
    levels = _count(state, r"to_rgbs\.(\d+)\.conv\.weight")
    channels = [state["input.input"].shape[1]]
    for level in range(levels):
        key = f"convs.{2 * level + 1}.conv.weight"
        if key not in state:
            raise CorruptWeights(f"This StyleGAN2 generator lacks {key}.")
        channels.append(state[key].shape[1])
    return StyleGAN2Shape(
        size=4 * 2**levels,
        style=state["style.1.weight"].shape[0],
        latent=state["style.1.weight"].shape[1],
        depth=depth,
        channels=tuple(channels),
    )


def is_nvidia(state: State) -> bool:
    """Whether the names are NVIDIA's."""
    return any(key.startswith(("mapping.", "synthesis.")) for key in state)


def average_of(state: State) -> Tensor | None:
    """The mean style vector an NVIDIA state dict carries (``mapping.w_avg``), if it does."""
    return state.get("mapping.w_avg")


def from_nvidia(state: State) -> dict[str, Tensor]:
    """The ``g_ema`` form of an NVIDIA state dict (StyleGAN2-ADA, or StyleGAN2 of StyleGAN3).

    Raises:
        CannotDo: conditional or residual generators, and StyleGAN3's alias-free ones.
        CorruptWeights: names that belong to neither.
    """
    _refuse_other_families(state)
    return {name: tensor for key, value in state.items() for name, tensor in _renamed(key, value)}


def _refuse_other_families(state: State) -> None:
    for key in state:
        if key.startswith("mapping.embed."):
            raise CannotDo("This generator is conditional on class labels; only plain ones load.")
        if ".skip." in key:
            raise CannotDo("This generator is of the residual kind; only the skip kind loads.")
        if re.match(r"synthesis\.(input|L\d+_)", key):
            raise CannotDo("This is a StyleGAN3 alias-free generator; StyleGAN2 ones load.")


_NVIDIA_LAYER = re.compile(r"synthesis\.b(\d+)\.(conv0|conv1|torgb)\.(.+)")


def _renamed(key: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The names and shapes one NVIDIA entry gets (none for what has no counterpart)."""
    if match := re.fullmatch(r"mapping\.fc(\d+)\.(weight|bias)", key):
        yield f"style.{int(match[1]) + 1}.{match[2]}", value
    elif key == "synthesis.b4.const":
        yield "input.input", value[None]
    elif match := _NVIDIA_LAYER.fullmatch(key):
        yield from _renamed_layer(int(match[1]), match[2], match[3], value)
    elif key != "mapping.w_avg" and not key.endswith("resample_filter"):
        raise CorruptWeights(f"The entry {key!r} belongs to no StyleGAN2 generator.")


def _renamed_layer(
    side: int, layer: str, entry: str, value: Tensor
) -> Iterator[tuple[str, Tensor]]:
    level = side.bit_length() - 3  # 4 -> 0, 8 -> 1, ...
    if layer == "torgb":
        prefix = "to_rgb1" if level == 0 else f"to_rgbs.{level - 1}"
        reshaped = value.reshape(1, -1, 1, 1) if entry == "bias" else value
        names = {"bias": "bias"}
    else:
        up = layer == "conv0"
        prefix = "conv1" if level == 0 else f"convs.{2 * level - 2 + (0 if up else 1)}"
        reshaped = value
        names = {"bias": "activate.bias"}
    names |= {f"affine.{part}": f"conv.modulation.{part}" for part in ("weight", "bias")}
    if entry == "weight":
        yield f"{prefix}.conv.weight", value[None]
    elif entry == "noise_const":
        index = 0 if level == 0 else 2 * level - (1 if layer == "conv0" else 0)
        yield f"noises.noise_{index}", value[None, None]
    elif entry == "noise_strength":
        yield f"{prefix}.noise.weight", value.reshape(1)
    elif entry == "resample_filter":
        if layer == "conv0":
            yield f"{prefix}.conv.blur.kernel", value * 4
    elif entry in names:
        yield f"{prefix}.{names[entry]}", reshaped
    else:
        raise CorruptWeights(f"The entry {entry!r} belongs to no StyleGAN2 layer.")


def _count(state: State, pattern: str) -> int:
    return sum(1 for key in state if re.fullmatch(pattern, key))


def _some(state: State) -> str:
    keys = sorted(state)
    return ", ".join(keys[:4]) + (f" and {len(keys) - 4} more" if len(keys) > 4 else "")
