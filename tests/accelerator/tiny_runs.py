"""A smallest run of every verb that computes, as recipes on tiny random models."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from safetensors.torch import load

from guided.errors import GuidedError
from guided.recipe import Recipe
from guided.studio import run
from tests.accelerator.simulated import accelerator
from tests.helpers import small_models, small_own, small_unclip, tiny_edit, tiny_training
from tests.helpers.tiny_clip import write_clip
from tests.helpers.tiny_language import write_language
from tests.helpers.tiny_text_gan import write_gan
from tests.tasks.scoring import paint

#: name -> recipe.  Words in capitals stand for files and folders; "OUT" for the run's own.
DENOISE = {"denoiser": "DENOISER", "scorer": "CLIP", "steps": 2}
DRAW = {"task": "generate", "prompts": ["a red hat"]}
CHANGE = {"task": "edit", "images": ["PICTURE"], "prompt": ["a red hat"]}
FACE = {"faces": "aligned", "generator": "GENERATOR", "scorer": "CLIP",
        "identity": "IDENTITY", "inverter": "INVERTER"}  # fmt: skip
CAPTION = {"task": "caption", "images": ["PICTURE"], "scorer": "CLIP", "language": "LANGUAGE",
           "beams": 2, "length": 2}  # fmt: skip
RUNS: dict[str, dict[str, Any]] = {
    "score": {"task": "score", "images": ["PICTURE", "OTHER"], "text": ["a hat"], "scorer": "CLIP"},
    "classify": {"task": "classify", "images": ["PICTURE"], "label": ["cat", "dog"],
                 "scorer": "CLIP"},
    "index": {"task": "index", "folder": "IMAGE_SUFFIXES", "index": "OUT/index", "scorer": "CLIP"},
    "search": {"task": "search", "query": "a red hat", "index": "INDEX"},
    "probe": {"task": "probe", "folder": "CLASSES", "scorer": "CLIP", "shots": [1], "draws": 1,
              "l2": 1.0},
    "caption": {**CAPTION, "iterations": 1, "preset": "ocr", "relevance": True},
    "caption by fusion": {**CAPTION, "method": "fuse", "plus": ["a red hat"]},
    "edit by a search": {**CHANGE, **FACE, "steps": 2, "mask": "MASK",
                         "keep_identity": 0.5},
    "edit by a mapper": {**CHANGE, **FACE, "method": "delta", "delta": "DELTA"},
    "edit by words' turn": {**CHANGE, **DENOISE, "method": "text-diff"},
    "edit within a mask": {**CHANGE, **DENOISE, "method": "inpaint", "mask": "MASK"},
    "generate by a GAN": {**DRAW, "method": "gan", "gan": "GAN", "count": 2, "best": 2,
                          "search": 1},
    "generate": {**DRAW, **DENOISE, "guide": ["prompt"], "cutouts": 2},
    "generate as stock models do": {**DRAW, **DENOISE, "denoiser": "STOCK", "guide": ["prompt"],
                                    "size": [16, 16], "scheduler": "ddpm"},
    "generate by a prior": {**DRAW, **DENOISE, "method": "unclip", "prior": "PRIOR",
                            "prior_steps": 2},
    "vary": {**DENOISE, "task": "vary", "images": ["PICTURE"], "count": 1, "toward": "a hat"},
    "read": {"task": "read", "images": ["PORTRAIT"]},
    "train": {"task": "train", **tiny_training.recipe(Path("OUT"), samples=16, prefetch=1)},
}  # fmt: skip
PORTRAIT = Path(__file__).resolve().parents[2] / "recipes" / "pictures" / "portrait-01.png"
#: Further ways through the verbs, for the soak.
LONGER: dict[str, dict[str, Any]] = {
    "generate as SDXL": {**RUNS["generate as stock models do"], "denoiser": "SDXL"},
    "generate as PixArt": {**RUNS["generate as stock models do"], "denoiser": "PIXART"},
    "generate on several ways": {**DRAW, **DENOISE, "guide": ["prompt"], "decode": "vae",
                                 "jacobian": "exact", "guide_image": ["OTHER"], "batch": 1,
                                 "count": 2, "scheduler": "euler-a", "recurrence": 2},
    "edit beyond a mapper": {**CHANGE, **FACE, "method": "refine", "delta": "DELTA",
                             "steps": 2},
    "edit what is inverted": {**CHANGE, **FACE, "steps": 2, "invert": "both", "invert_steps": 2,
                              "perceptual": "CLIP", "strip": True, "sweep": [-1.0, 1.0], "gif": 3},
    "edit along words": {**CHANGE, **DENOISE, "method": "directional"},
    "edit the attention": {**CHANGE, **DENOISE, "method": "p2p"},
    "edit an inversion": {**CHANGE, **DENOISE, "method": "ddpm"},
    "caption as ZeroCap does": {**CAPTION, "compat": "zerocap", "plus": ["a hat"]},
    "vary to another": {**RUNS["vary"], "toward": "", "to": "OTHER", "count": 2},
    "train a mapper": {
        **RUNS["train"], "objective": "mapper", "samples": 8, "batch": 4,
        "settings": {"prompt": "a hat", "frozen": "fp32", "generator": "GENERATOR",
                     "scorer": "CLIP", "identity": "IDENTITY", "directional": 0.5},
    },
}  # fmt: skip
#: A device of this machine in the place of the simulated one: scripts/test --device cuda
REAL = os.environ.get("GUIDED_TEST_DEVICE", "")
#: What is meant to compute on the CPU: the probe's small regression in float64.
ON_CPU = {"probe": "guided/training/linear_probe.py"}


def write(folder: Path) -> dict[str, str]:
    """The models and pictures, by the word that stands for them."""
    clip = write_clip(folder / "clip")
    scorer = small_own.clip(clip)
    faces = tiny_edit.write_models(folder / "faces")
    own = small_own.write_autoencoder(folder / "autoencoder")
    pictures = paint(folder / "pictures", 2, 32)
    for name, count in (("one", 5), ("two", 6)):
        paint(folder / "classes" / name, count)
    mask = Image.new("L", (32, 32))
    ImageDraw.Draw(mask).rectangle((5, 5, 20, 20), fill=255)
    mask.save(folder / "mask.png")
    words = {
        "CLIP": f"local-dir:{clip}", "PICTURE": pictures[0], "OTHER": pictures[1],
        "PORTRAIT": PORTRAIT, "MASK": folder / "mask.png", "IMAGE_SUFFIXES": folder / "pictures",
        "CLASSES": folder / "classes", "INDEX": folder / "index",
        "GENERATOR": faces["generator"], "IDENTITY": faces["identity"],
        "INVERTER": tiny_edit.write_inverter(folder / "inverter.safetensors"),
        "DELTA": tiny_edit.write_delta(folder / "delta.safetensors"),
        "DENOISER": f"local-dir:{small_own.write_denoiser(folder / 'denoiser', own, clip)}",
        "STOCK": f"local-dir:{small_models.write_folder('sd', folder / 'sd')}",
        "PRIOR": f"local-dir:{small_unclip.write_prior(folder / 'prior', scorer.fingerprint)}",
        "GAN": write_gan(folder / "gan", f"local-dir:{clip}"),
        "LANGUAGE": f"local-dir:{write_language(folder / 'language')}",
    }  # fmt: skip
    told = {name: str(word) for name, word in words.items()}
    perform({**RUNS["index"], "index": "INDEX"}, told, folder / "indexing", "cpu")
    return told


def perform(keys: Mapping[str, Any], words: Mapping[str, str], out: Path, device: str) -> Any:
    """The answer of a run on a device and the numbers of the files that it wrote, by name."""

    def meant(value: Any) -> Any:
        if isinstance(value, list):
            return [meant(each) for each in value]
        if isinstance(value, dict):
            return {key: meant(each) for key, each in value.items()}
        if isinstance(value, str) and value.startswith("OUT"):
            return str(out) + value[3:]
        return words.get(value, value) if isinstance(value, str) else value

    table = meant(dict(keys))
    if table["task"] == "train":
        table["betas"] = list(table.get("betas", (0.9, 0.99)))
    makes = table["task"] in ("caption", "edit", "generate", "vary")
    same = {"dtype": "fp32"} if makes else {}  # auto is bf16 there
    recipe = Recipe.of({**same, **table, "device": device, "seed": 3, "out": str(out)}, "test")
    answer = run(recipe, threads=1).result().answer
    files: dict[str, Any] = {}
    for path in sorted(out.rglob("*")):
        if path.suffix == ".png":
            with Image.open(path) as image:
                files[path.name] = np.asarray(image.convert("RGB")).astype(int)
        elif path.suffix == ".safetensors":
            files |= {f"{path.name} {k}": v.numpy() for k, v in load(path.read_bytes()).items()}
    return {"answer": answer, **files}


def differences(one: Any, other: Any, loose: float = 1.0, name: str = "") -> list[str]:
    """Where two runs' numbers are further apart than roundings lead them."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        pairs = [(one[key], other[key], f"{name} {key}") for key in one]
        return [each for a, b, inner in pairs for each in differences(a, b, loose, inner)]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = [(a, b, name) for a, b in zip(one, other, strict=True)]
        return [each for a, b, inner in pairs for each in differences(a, b, loose, inner)]
    if isinstance(one, np.ndarray) and one.shape == np.shape(other):
        apart = np.abs(one.astype(float) - other.astype(float)).max(initial=0.0)
        same = apart <= (1 if one.dtype == int else 1e-4) * loose
    elif isinstance(one, float) and isinstance(other, float):
        same = abs(one - other) <= 1e-4 * max(1.0, abs(one)) * loose
    else:
        paths = isinstance(one, str) and isinstance(other, str)
        same = Path(one).name == Path(other).name if paths else one == other
    return [] if same else [f"{name.strip()}: {str(one)[:60]} is not {str(other)[:60]}"]


class TinyRuns:
    """The verbs' runs within a folder, each once on the CPU."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.words = write(folder / "models")
        self._plain: dict[str, Any] = {}
        self._count = 0

    def _perform(self, name: str, device: str) -> Any:
        self._count += 1
        family = (RUNS | LONGER)[name].get("denoiser", "DENOISER")
        if family not in self.words:
            place = small_models.write_folder(family.lower(), self.folder / family)
            self.words[family] = f"local-dir:{place}"
        return perform((RUNS | LONGER)[name], self.words, self.folder / str(self._count), device)

    def faults(self, name: str, seeded: Any = None) -> list[str]:
        """What is wrong with a verb's run on the device; nothing, if all is well."""
        if name not in self._plain:
            self._plain[name] = self._perform(name, "cpu")
        if REAL and seeded is None:
            return differences(self._plain[name], self._perform(name, REAL), loose=20.0)
        with seeded or contextlib.nullcontext(), accelerator() as device:
            try:
                given = self._perform(name, "cuda")
            except (GuidedError, RuntimeError, TypeError) as error:
                return [f"{type(error).__name__}: {error}"]
        stayed = [place for place in device.on_cpu if ON_CPU.get(name, "nowhere") not in place]
        idle = [] if device.products["cuda"] else ["no product was made on the device"]
        stayed = [f"products on the CPU in {place}" for place in stayed]
        return [*idle, *stayed, *differences(self._plain[name], given)]
