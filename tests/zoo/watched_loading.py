"""Load hostile folders of every role under an audit hook; write what was done to rows.json.

A program of its own with a folder to write into: ``python -m tests.zoo.watched_loading DIR``.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
#: Where code may come from: installed packages, the standard library, this package and its tests.
HOMES = (
    *{str(Path(sysconfig.get_path(name)).resolve()) for name in ("stdlib", "purelib", "platlib")},
    str(ROOT / "guided"), str(ROOT / "tests"),
)  # fmt: skip


class Watch:
    """What the interpreter does while ``on``, as far as a model folder must not make it do so."""

    def __init__(self) -> None:
        self.on = False
        self.events: list[str] = []
        sys.addaudithook(self.hook)

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event == "exec" and isinstance(arguments[0], CodeType):
            self.code(event, arguments[0].co_filename)
        elif event == "compile" or (event == "import" and arguments[1]):
            self.code(event, arguments[1])
        elif event == "open" and isinstance(arguments[0], str | bytes):
            flags = arguments[2] if isinstance(arguments[2], int) else 0
            name = os.fsdecode(arguments[0])
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and name != os.devnull:
                self.events.append(f"open {name}")
        elif event in ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen",
                       "socket.connect", "os.remove", "os.rename", "os.mkdir"):  # fmt: skip
            self.events.append(f"{event} {arguments[:2]}")

    def code(self, event: str, name: object) -> None:
        text = os.fsdecode(name) if isinstance(name, str | bytes) else ""
        made = text.startswith("<") or not text
        if not made and not str(Path(text).resolve()).startswith(HOMES):
            self.events.append(f"{event} {text}")


class Case(NamedTuple):
    """A folder made hostile: what loads it, which file holds which key with which value."""

    role: str
    load: Callable[[Path], object]
    source: Path
    file: str
    keys: tuple[str, ...]
    value: Any
    code: str = "own.py"


def hostile(case: Case, place: Path, mark: Path) -> Path:
    """A copy of a sound folder with one poisoned file and the code that it points to."""
    shutil.copytree(case.source, place)
    if case.keys:
        path = place / case.file
        table = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        inside = table
        for key in case.keys[:-1]:
            inside = inside.setdefault(key, {})
        inside[case.keys[-1]] = case.value
        path.write_text(json.dumps(table), "utf-8")
    for name in {case.code, "own.py", f"{Path(case.file).parent}/own.py"}:
        (place / name).write_text(
            f"open({str(mark)!r}, 'w').write('ran')\nfrom transformers import "
            "PreTrainedTokenizerFast as Own, CLIPTextModel as CLIPTextModel\n",
            "utf-8",
        )
    return place


class Sound(NamedTuple):
    """A sound folder and what loads folders of its role."""

    load: Callable[[Path], object]
    source: Path

    def bad(self, role: str, file: str, key: str | tuple[str, ...], value: Any) -> Case:
        """This folder with a key put into one of its files."""
        keys = (key,) if isinstance(key, str) else key
        return Case(role, self.load, self.source, file, keys, value)

    def coded(self, role: str, file: str) -> Case:
        """This folder with a Python file in a place where a library might look for it."""
        return Case(role, self.load, self.source, file, (), None, file)


def sound(root: Path) -> dict[str, Sound]:
    """Tiny sound folders by role."""
    from guided.core.device import Device
    from guided.generators.diffusion import load_diffusion
    from guided.generators.diffusion.portrait_folder import load_own
    from guided.generators.diffusion.vae import load_autoencoder
    from guided.generators.unclip import load_prior, load_unclip, with_prior
    from guided.language.load import load_language
    from guided.scorers.clip import load_clip
    from tests.helpers import small_own
    from tests.helpers.small_models import write_folder
    from tests.helpers.small_unclip import write_prior
    from tests.helpers.tiny_clip import write_clip
    from tests.helpers.tiny_language import write_language

    clip, vae = write_clip(root / "clip"), small_own.write_autoencoder(root / "vae")
    scorer, own = small_own.clip(clip), small_own.write_denoiser(root / "own", vae, clip)
    prior = write_prior(root / "prior", scorer.fingerprint)
    both = with_prior(load_own(own, scorer), load_prior(str(prior), scorer.fingerprint))
    both.pipe.save_pretrained(root / "unclip")
    carrier = shutil.copytree(clip, root / "carrier")
    words = json.loads((carrier / "tokenizer_config.json").read_text("utf-8"))
    words |= {"auto_map": AUTO, "tokenizer_class": "Own"}
    (carrier / "tokenizer_config.json").write_text(json.dumps(words), "utf-8")
    return {
        "carrier": Sound(lambda folder: load_clip(f"local-dir:{folder}"), carrier),
        "scorer": Sound(lambda folder: load_clip(f"local-dir:{folder}"), clip),
        "judge": Sound(lambda folder: load_clip(f"local-dir:{folder}", role="judge"), clip),
        "language": Sound(
            lambda folder: load_language(f"local-dir:{folder}"), write_language(root / "language")
        ),
        "pipeline": Sound(load_diffusion, write_folder("sd", root / "sd")),
        "denoiser": Sound(lambda folder: load_own(folder, scorer), own),
        "autoencoder": Sound(lambda folder: load_autoencoder(folder, Device()), vae),
        "prior": Sound(lambda folder: load_prior(str(folder), scorer.fingerprint), prior),
        "unclip": Sound(load_unclip, root / "unclip"),
    }


AUTO = {"AutoTokenizer": ["own.Own", "own.Own"], "AutoConfig": "own.Own", "AutoModel": "own.Own"}


def text_cases(by: dict[str, Sound]) -> list[Case]:
    """Hostile scorers, judges and language models."""
    text, scorer, language = ("model_cfg", "text_cfg"), by["scorer"], by["language"]
    vision = ("model_cfg", "vision_cfg", "timm_model_name")
    settings, words = "open_clip_config.json", "tokenizer_config.json"
    trust = {"trust_remote_code": True}
    return [
        by["carrier"].bad("scorer", settings, (*text, "tokenizer_kwargs"), trust),
        scorer.bad("scorer", words, "auto_map", AUTO),
        scorer.bad("scorer", words, "tokenizer_class", "Own"),
        scorer.bad("scorer", words, "vocab_file", "/etc/passwd"),
        scorer.bad("scorer", "config.json", "auto_map", AUTO),
        scorer.bad("scorer", settings, (*text, "tokenizer_kwargs"), trust),
        scorer.bad("scorer", settings, (*text, "tokenizer_kwargs"), {"subfolder": "../other"}),
        scorer.bad("scorer", settings, (*text, "hf_model_name"), "someone/else"),
        scorer.bad("scorer", settings, vision, "local-dir:."),
        by["judge"].bad("judge", words, "auto_map", AUTO),
        language.bad("language", "config.json", "auto_map", AUTO),
        language.bad("language", "config.json", "attn_implementation", "own/kernel"),
        language.bad("language", "tokenizer.json", "auto_map", AUTO),
    ]


def image_cases(by: dict[str, Sound]) -> list[Case]:
    """Hostile generators, whole or in parts."""
    stock, own, vae, unclip = (
        by[name] for name in ("pipeline", "denoiser", "autoencoder", "unclip")
    )
    index, quantised = "model_index.json", {"quant_method": "own"}
    parts = ("unet", "vae", "text_encoder")
    return [
        *(stock.bad(part, f"{part}/config.json", "auto_map", AUTO) for part in parts),
        stock.bad("scheduler", "scheduler/scheduler_config.json", "auto_map", AUTO),
        stock.bad("tokenizer", "tokenizer/tokenizer_config.json", "auto_map", AUTO),
        stock.bad("pipeline", index, "_class_name", ["own", "Own"]),
        stock.bad("pipeline", index, "unet", ["own", "Own"]),
        stock.bad("pipeline", index, "custom_pipeline", "own"),
        stock.bad("pipeline", "unet/config.json", "quantization_config", quantised),
        stock.coded("pipeline", "None.py"),
        stock.coded("pipeline", "unet/diffusers.py"),
        stock.coded("pipeline", "text_encoder/transformers.py"),
        own.bad("denoiser", "transformer/config.json", "auto_map", AUTO),
        own.bad("denoiser", "scheduler/scheduler_config.json", "auto_map", AUTO),
        own.bad("denoiser", index, "custom_pipeline", "own"),
        vae.bad("autoencoder", "vae/config.json", "auto_map", AUTO),
        vae.bad("autoencoder", "tiny/config.json", "quantization_config", quantised),
        by["prior"].bad("prior", "config.json", "auto_map", AUTO),
        unclip.bad("unclip", "prior/config.json", "auto_map", AUTO),
        unclip.bad("unclip", "tokenizer/tokenizer_config.json", "auto_map", AUTO),
        unclip.coded("unclip", "prior/guided.nets.prior.py"),
    ]


def cases(root: Path) -> list[Case]:
    """Hostile folders of every role, and sound ones with Python files beside the weights."""
    by = sound(root)
    beside = [
        Case(f"sound {role}", each.load, each.source, "own.txt", (), None, "modeling.py")
        for role, each in by.items()
        if role != "carrier"
    ]
    return [*text_cases(by), *image_cases(by), *beside]


def watched(root: Path) -> list[dict[str, Any]]:
    """What came of every case; the last one is a control that runs the code by hand."""
    watch, rows, mark = Watch(), [], root / "MARK"
    for number, case in enumerate(cases(root)):
        folder = hostile(case, root / f"{number}", mark)
        error: Any = None
        watch.on, watch.events = True, []
        try:
            case.load(folder)
        except Exception as failure:
            error = failure
        watch.on = False
        key = case.keys[-1] if case.keys else ""
        rows.append({
            "role": case.role, "file": str(folder / case.file), "key": key,
            "error": type(error).__name__ if error else "", "message": str(error or ""),
            "status": getattr(error, "exit_status", None), "events": watch.events,
            "ran": mark.exists(),
        })  # fmt: skip
    watch.on, watch.events = True, []
    sys.path.insert(0, str(root / "0"))
    __import__("own")
    watch.on = False
    rows.append({"role": "control", "events": watch.events, "ran": mark.exists()})
    return rows


if __name__ == "__main__":
    place = Path(sys.argv[1]).resolve()
    (place / "rows.json").write_text(json.dumps(watched(place)), "utf-8")
