"""How alike two pictures look, by the inner features of a network: LPIPS, or a CLIP's own trunk.

Both offer ``features`` and ``distance``; ``name`` says which trunk, since distances compare only
under one.  Source: Zhang et al. 2018 (LPIPS, arXiv 1801.03924), eq. 1.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from guided.core.device import Device
from guided.core.shapes import expect
from guided.errors import CannotDo, CorruptWeights
from guided.zoo.packing import load_weights

Features = list[Tensor]
Net = Literal["alex", "vgg", "squeeze"]
_SMALLEST = 1e-20  # of a squared length: the root of 0 has no gradient


class TrunkDistance:
    """A perceptual distance from any function that gives feature maps [B, C, ...].

    Each map is normalised over its channels; squared differences, weighted per channel by
    ``heads`` where there are any, are averaged over positions and added up over the maps.
    """

    def __init__(
        self,
        trunk: Callable[[Tensor], Features],
        *,
        name: str,
        heads: Sequence[Tensor] | None = None,
    ) -> None:
        self.name = name
        self._trunk = trunk
        self._heads = heads

    def features(self, images: Tensor) -> Features:
        """Normalised maps, each [B, C, P], of pictures [B, 3, H, W] in [0, 1]; differentiable.

        Raises:
            ShapeError: another shape.
        """
        expect(images, "b 3 h w", "images")
        maps = [each.float().flatten(2) for each in self._trunk(images)]
        return [
            each / each.square().sum(1, keepdim=True).clamp_min(_SMALLEST).sqrt() for each in maps
        ]

    def distance(self, first: Features, second: Features) -> Tensor:
        """Distances [B]; 0 for equal features."""
        total: Tensor | None = None
        for i, (a, b) in enumerate(zip(first, second, strict=True)):
            squares = (a - b).square()
            if self._heads is not None:
                squares = squares * self._heads[i].view(1, -1, 1)
            here = squares.sum(1).mean(1)
            total = here if total is None else total + here
        if total is None:
            raise CannotDo(f"The trunk {self.name!r} gives no features.")
        return total


def clip_trunk(scorer: Any, layers: Sequence[str] | None = None) -> TrunkDistance:
    """The distance by a CLIP's image tower: ``layers`` are names of its modules.

    Without names: the four stages of a ResNet, or three blocks of a transformer at one third, two
    thirds and the end.

    Raises:
        CannotDo: a tower whose parts have other names, and none were given.
    """
    visual: nn.Module = scorer.model.visual
    known = dict(visual.named_modules())
    names = list(layers) if layers is not None else _usual_layers(known)
    missing = [name for name in names if name not in known]
    if missing or not names:
        raise CannotDo(
            f"The image tower of {scorer.name!r} has no layers {', '.join(missing) or 'we know'}.",
            hint="Name layers of it that give feature maps.",
        )

    def trunk(images: Tensor) -> Features:
        caught: dict[str, Tensor] = {}
        hooks = [known[name].register_forward_hook(_catcher(caught, name)) for name in names]
        try:
            visual(scorer.preprocess.tensor(images.to(scorer.device.torch)).to(scorer.device.dtype))
        finally:
            for hook in hooks:
                hook.remove()
        return [_channels_first(caught[name], images.shape[0]) for name in names]

    return TrunkDistance(trunk, name=f"trunk of {scorer.name}")


def _usual_layers(known: dict[str, nn.Module]) -> list[str]:
    stages = [name for name in known if re.fullmatch(r"(?:trunk\.)?(?:layer|stages\.)\d", name)]
    if stages:
        return stages
    blocks = [n for n in known if re.fullmatch(r"(?:transformer\.resblocks|trunk\.blocks)\.\d+", n)]
    count = len(blocks)
    return [blocks[count * part // 3 - 1] for part in (1, 2, 3) if count * part // 3 > 0]


def _catcher(caught: dict[str, Tensor], name: str) -> Callable[[nn.Module, Any, Any], None]:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        caught[name] = output

    return hook


def _channels_first(maps: Tensor, rows: int) -> Tensor:
    """Maps [B, C, ...]: as they are, or tokens [B, T, C] or [T, B, C] turned."""
    if maps.ndim != 3:
        return maps
    tokens = maps if maps.shape[0] == rows else maps.transpose(0, 1)
    return tokens.transpose(1, 2)


def lpips_distance(
    trunk: str | Path, net: Net = "vgg", device: Device | None = None
) -> TrunkDistance:
    """LPIPS with torchvision's ImageNet weights in ``trunk`` (such as ``vgg16-397923af.pth``).

    The heads come with the lpips package; nothing is fetched.

    Raises:
        CorruptWeights: weights of another network; the message lists the keys.
    """
    place = device or Device()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import lpips

        model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    _load_trunk(model.net, load_weights(Path(trunk)), net, Path(trunk))
    place.prepare(model)
    heads = [head.model[-1].weight.float().flatten() for head in model.lins]

    def features(images: Tensor) -> Features:
        scaled = model.scaling_layer((2 * images.to(place.torch) - 1).to(place.dtype))
        return list(model.net(scaled))

    return TrunkDistance(features, name=f"lpips-{net}", heads=heads)


def _load_trunk(trunk: nn.Module, state: dict[str, Tensor], net: str, path: Path) -> None:
    """Copy torchvision's ``features.N`` entries into the slices they are cut into."""
    own = trunk.state_dict()
    places = {re.sub(r"^slice\d+\.", "features.", key): key for key in own}
    missing = [key for key in places if key not in state]
    wrong = [k for k, o in places.items() if k in state and state[k].shape != own[o].shape]
    if missing or wrong:
        raise CorruptWeights(
            f"{path} does not hold the {net} trunk; missing: {', '.join(missing[:6]) or 'none'}; "
            f"misshapen: {', '.join(wrong[:6]) or 'none'}.",
            hint="Expected is torchvision's ImageNet weight file of that network.",
        )
    with torch.no_grad():
        trunk.load_state_dict({places[key]: state[key] for key in places})
