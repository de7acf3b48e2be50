"""Files of version 0.1.0 are read by the names of today, whatever holds them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from guided.nets.folded_encoder import FoldedStyleEncoder, build_folded_encoder
from guided.nets.identity import IdentityNet, build_identity
from guided.nets.latent_scorer import LatentNet
from guided.nets.text_gan import TextGenerator, build_text_generator
from guided.zoo.checkpoint import read_checkpoint
from guided.zoo.key_map import current_names
from guided.zoo.packing import load_weights, pack
from tests.helpers.tiny_text_gan import SHAPE

#: What version 0.1.0 called the parts of each network, as (now, then).
GAN = (("text_proj", "listen"), ("frozen_mapping", "given"), ("mask_overlay", "stencil"))
SCORER = (("pos_embed", "places"), (r"\.norm1\.", ".before."), (r"\.qkv\.", ".mixed."),
          (r"\.norm2\.", ".between."), (r"\.mlp\.", ".inner."))  # fmt: skip
FOLDED = (("backbone", "trunk"), ("heads", "glances"))

Names = tuple[tuple[str, str], ...]


def _before(net: nn.Module, names: Names, prefix: str = "") -> dict[str, Tensor]:
    """The tensors of a network as version 0.1.0 wrote them."""
    state = {}
    for name, tensor in net.state_dict().items():
        old = name
        for now, then in names:
            old = re.sub(now, then, old)
        state[prefix + old] = tensor.contiguous()
    return state


def _gan() -> TextGenerator:
    return TextGenerator(type(SHAPE)(**{**SHAPE.plain(), "frozen_layers": 2, "masks": 3}))


CASES: list[tuple[Callable[[], nn.Module], Names, str]] = [
    (_gan, GAN, ""),
    (lambda: LatentNet(4, 8, 24, 32, 2), SCORER, ""),
    (lambda: IdentityNet((8, 8), (1, 1), 4, 8, 8), FOLDED, ""),
    (lambda: FoldedStyleEncoder(4, 8, (8, 8, 8), (1, 1, 1), 4, 8), FOLDED, "encoder."),
]


@pytest.mark.parametrize(("make", "names", "prefix"), CASES)
@pytest.mark.parametrize("packed", [False, True])
def test_old_names_become_those_of_the_network(
    make: Callable[[], nn.Module], names: Names, prefix: str, packed: bool, tmp_path: Path
) -> None:
    net = make()
    old = _before(net, names, prefix)
    now = {prefix + name for name in net.state_dict()}
    assert not now >= set(old)
    file = tmp_path / "model.safetensors"
    save_file(pack(old, smallest=64) if packed else old, file)
    assert set(load_weights(file)) == now
    assert set(read_checkpoint(file).tensors) == now


def test_networks_are_built_of_old_files_with_the_same_outputs(tmp_path: Path) -> None:
    gan, person = _gan(), IdentityNet((8, 8), (1, 1), 4, 8, 8).eval()
    encoder = FoldedStyleEncoder(4, 8, (8, 8, 8), (1, 1, 1), 4, 8).eval()
    config = {**gan.shape.plain(), "given": 2}
    del config["frozen_layers"]
    twin = build_text_generator(config, current_names(_before(gan, GAN)))
    z, text, images = torch.randn(2, 8), torch.randn(2, 24), torch.rand(2, 3, 128, 128)
    with torch.no_grad():
        assert torch.equal(twin(z, text), gan(z, text))
        again = build_identity(current_names(_before(person, FOLDED)))
        assert torch.equal(again(images), person(images))
        code = build_folded_encoder(current_names(_before(encoder, FOLDED)))
        assert torch.equal(code(images), encoder(images))


def test_tensors_of_others_keep_their_names() -> None:
    others = ("trunk.blocks.0.weight", "places", "given.weight", "visual.trunk.stages.0.0.0.weight")
    assert set(current_names({name: torch.ones(1) for name in others})) == set(others)
