"""Tiny random networks in the public file formats: StyleGAN2, e4e, IR-SE-50, StyleCLIP mappers."""

from __future__ import annotations

import pickle
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from guided.nets.e4e import StyleEncoder
from guided.nets.irse50 import IRSE50
from guided.nets.mappers import LevelsMapper, StyleSpaceMapper
from guided.nets.stylegan2 import StyleGAN2, StyleGAN2Shape

STYLE = 16
SHAPE = StyleGAN2Shape(32, STYLE, STYLE, 4, (16, 16, 12, 8))
WIDTHS = (16, 16, 24, 32)


def seeded(make: Any, seed: int = 0) -> nn.Module:
    """A network whose initial weights depend on the seed alone."""
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    made: nn.Module = make()
    torch.random.set_rng_state(state)
    return made


def tiny_stylegan2(seed: int = 0, shape: StyleGAN2Shape = SHAPE) -> StyleGAN2:
    """A random generator whose noise and biases are not zero and whose pictures are not extreme."""
    net: StyleGAN2 = seeded(lambda: StyleGAN2(shape), seed)  # type: ignore[assignment]
    fill = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith(("noise.weight", "activate.bias")) or name.startswith("to_rgb"):
                if name.endswith(("noise.weight", "bias")) and "modulation" not in name:
                    parameter.copy_(0.1 * torch.randn(parameter.shape, generator=fill))
                elif name.endswith("conv.weight"):
                    parameter.mul_(0.5)
    return net.requires_grad_(False)


def write_generator(path: Path, seed: int = 0, shape: StyleGAN2Shape = SHAPE) -> Path:
    """A checkpoint as StyleCLIP and rosinality's converter publish it."""
    net = tiny_stylegan2(seed, shape)
    z = torch.randn(256, shape.latent, generator=torch.Generator().manual_seed(seed))
    torch.save({"g_ema": net.state_dict(), "latent_avg": net.mapping(z).mean(0)}, path)
    return path


def write_encoder(path: Path, seed: int = 1, rows: int = SHAPE.rows) -> Path:
    """An e4e checkpoint: prefixed state, options, and the mean latent."""
    net = seeded(lambda: StyleEncoder(WIDTHS, rows, STYLE), seed).eval()
    state = {f"encoder.{name}": value for name, value in net.state_dict().items()}
    mean = torch.zeros(rows, STYLE)
    torch.save({"state_dict": state, "opts": {"encoder_type": "E"}, "latent_avg": mean}, path)
    return path


def write_face_network(path: Path, seed: int = 2) -> Path:
    """A bare state dict like ``model_ir_se50.pth``."""
    torch.save(seeded(lambda: IRSE50(WIDTHS, 12), seed).state_dict(), path)
    return path


def write_mapper(path: Path, seed: int = 3, *, space: str = "w") -> Path:
    """A StyleCLIP mapper checkpoint."""
    widths = {0: 16, 2: 16, 3: 16}
    make = (lambda: LevelsMapper(STYLE)) if space == "w" else (lambda: StyleSpaceMapper(widths))
    state = {f"mapper.{name}": value for name, value in seeded(make, seed).state_dict().items()}
    torch.save({"state_dict": state, "opts": {"description": "purple hair"}}, path)
    return path


# ------------------------------------------------------------------ NVIDIA's pickles


def nvidia_state(net: StyleGAN2) -> dict[str, Tensor]:
    """The weights under NVIDIA's names, by the public correspondence of both layouts."""
    own = net.state_dict()
    named = {"mapping.w_avg": torch.linspace(-1, 1, net.shape.style)}
    for i in range(net.shape.depth):
        for part in ("weight", "bias"):
            named[f"mapping.fc{i}.{part}"] = own[f"style.{i + 1}.{part}"]
    for level in range(len(net.shape.channels)):
        block = f"synthesis.b{4 * 2**level}"
        if level == 0:
            named[f"{block}.const"] = own["input.input"][0]
            layers = {"conv1": ("conv1", 0)}
        else:
            layers = {
                "conv0": (f"convs.{2 * level - 2}", 2 * level - 1),
                "conv1": (f"convs.{2 * level - 1}", 2 * level),
            }
        for theirs, (ours, index) in layers.items():
            named[f"{block}.{theirs}.weight"] = own[f"{ours}.conv.weight"][0]
            named[f"{block}.{theirs}.bias"] = own[f"{ours}.activate.bias"]
            named[f"{block}.{theirs}.noise_strength"] = own[f"{ours}.noise.weight"][0]
            named[f"{block}.{theirs}.noise_const"] = own[f"noises.noise_{index}"][0, 0]
            for part in ("weight", "bias"):
                named[f"{block}.{theirs}.affine.{part}"] = own[f"{ours}.conv.modulation.{part}"]
        colour = "to_rgb1" if level == 0 else f"to_rgbs.{level - 1}"
        named[f"{block}.torgb.weight"] = own[f"{colour}.conv.weight"][0]
        named[f"{block}.torgb.bias"] = own[f"{colour}.bias"].flatten()
        for part in ("weight", "bias"):
            named[f"{block}.torgb.affine.{part}"] = own[f"{colour}.conv.modulation.{part}"]
    return named


class _Persistent:
    """Pickles as NVIDIA's persistent classes do: a call that rebuilds it from source and state."""

    def __init__(self, state: Mapping[str, Any]) -> None:
        self.state = dict(state)

    def __reduce__(self) -> tuple[Any, ...]:
        rebuild = sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj
        meta = {
            "type": "class", "version": 6, "module_src": "raise SystemExit('source was run')",
            "class_name": "Generator", "state": self.state,
        }  # fmt: skip
        return rebuild, (meta,)


def _tree(named: Mapping[str, Tensor]) -> _Persistent:
    parameters, modules = {}, {}
    for name, value in named.items():
        head, _, rest = name.partition(".")
        if rest:
            modules.setdefault(head, {})[rest] = value
        else:
            parameters[name] = nn.Parameter(value) if value.is_floating_point() else value
    inner = {name: _tree(children) for name, children in modules.items()}
    return _Persistent({"_parameters": parameters, "_buffers": {}, "_modules": inner})


def write_nvidia_pickle(path: Path, net: StyleGAN2) -> Path:
    """A network pickle of StyleGAN2-ADA holding ``G_ema``, with hostile source text inside."""
    package, module = types.ModuleType("torch_utils"), types.ModuleType("torch_utils.persistence")

    def _reconstruct_persistent_obj(meta: Any) -> Any:
        raise AssertionError("the pickle was run")

    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    module._reconstruct_persistent_obj = _reconstruct_persistent_obj  # type: ignore[attr-defined]
    sys.modules |= {"torch_utils": package, "torch_utils.persistence": module}
    try:
        path.write_bytes(pickle.dumps({"G_ema": _tree(nvidia_state(net))}, protocol=4))
    finally:
        del sys.modules["torch_utils"], sys.modules["torch_utils.persistence"]
    return path


def no_noise(shape: StyleGAN2Shape) -> list[Tensor | None]:
    """A list that switches every noise map off."""
    return [None] * len(shape.noise_sizes)
