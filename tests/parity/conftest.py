"""What the StyleCLIP parity tests share: the recorded tensors and the networks behind them."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from safetensors.torch import load_file
from torch import Tensor

from guided.nets.stylegan2 import StyleGAN2
from guided.nets.stylegan2_formats import build_stylegan2
from tests.parity.comparing import Load
from tests.references import stylegan2


@pytest.fixture(scope="module")
def load(parity_dir: Path) -> Load:
    """Recorded StyleCLIP tensors by file name; skips what only the full data holds."""

    def read(name: str) -> dict[str, Tensor]:
        path = parity_dir / "styleclip" / f"{name}.safetensors"
        if not path.is_file():
            pytest.skip(f"{path.name} is only in the full data: pytest --parity DIR")
        return load_file(path)

    return read


@pytest.fixture(scope="module")
def net(load: Load) -> StyleGAN2:
    return build_stylegan2(load("stylegan2_g_ema")).requires_grad_(False)


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    """The same network computed by modulated weights and grouped convolutions."""
    return stylegan2
