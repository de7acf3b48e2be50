"""A tiny random text GAN, its files, and a folder of captioned pictures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file

from guided.nets.text_gan import TextGanShape, TextGenerator
from guided.training.text_gan_modules import GanModules

SHAPE = TextGanShape(32, text=24, latent=8, channels=(12, 10, 8), style=12, hidden=16, finish=4)
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 50, 220)}


def tiny_generator(seed: int = 0, shape: TextGanShape = SHAPE) -> TextGenerator:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return TextGenerator(shape)


def tiny_players(seed: int = 0, group: int = 4) -> GanModules:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return GanModules(SHAPE, (8, 12, 16), 12, group, 0)


def write_gan(
    folder: Path, scorer: str, words: str = "a red green person with hat", text: int = SHAPE.text
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "model.safetensors"
    shape = replace(SHAPE, text=text)
    tensors = tiny_generator(shape=shape).state_dict()
    save_file({n: t.contiguous() for n, t in tensors.items()}, file)
    config = {**shape.plain(), "scorer": scorer, "words": sorted(words.split())}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return file


def write_pictures(folder: Path, count: int = 12) -> Path:
    """Squares of one colour, each with a text file that says which."""
    folder.mkdir(parents=True, exist_ok=True)
    for place in range(count):
        name = list(COLOURS)[place % len(COLOURS)]
        shade = tuple(max(0, c - 3 * place) for c in COLOURS[name])
        Image.new("RGB", (40, 40), shade).save(folder / f"{place:03d}.png")
        (folder / f"{place:03d}.txt").write_text(f"a {name} square\n", encoding="utf-8")
    return folder
