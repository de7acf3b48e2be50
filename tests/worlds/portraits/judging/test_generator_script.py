from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from guided.nets.stylegan2 import StyleGAN2, StyleGAN2Shape

ROOT = Path(__file__).resolve().parents[4]


@pytest.mark.soak
def test_the_script_prints_a_row_for_each_set_and_writes_a_sheet(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = StyleGAN2(StyleGAN2Shape(32, 16, 16, 2, (8, 8, 8, 8)))
    file = tmp_path / "model.safetensors"
    save_file({f"g_ema.{k}": v.contiguous() for k, v in net.state_dict().items()}, file)
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "judge"), "generator", str(file), "--count", "8",
         "--sheet", str(tmp_path / "sheet.png")],
        capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [line[:9].strip() for line in done.stdout.splitlines()]
    assert rows == ["pictures", "real", "psi 1", "psi 0.7", "blur", "noise", "mean"]
    with Image.open(tmp_path / "sheet.png") as page:
        assert page.size == (12 * 32, 4 * 32)
    assert not (tmp_path / "card.toml").exists()
