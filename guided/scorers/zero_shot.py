"""Classes from words alone: prompts for each label, their mean embedding, and a cache of them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from guided.core.protocols import Scorer
from guided.core.reading import LARGEST_TEXT, parse_json, parse_toml, read_text
from guided.errors import UsageError

logger = logging.getLogger(__name__)

NAMED = ("openai", "simple")
DEFAULT = "a photo of a {}."


def prompts_of(labels: Sequence[str], templates: Sequence[str] = ()) -> dict[str, list[str]]:
    """Prompts for each label.

    A template holds ``{}`` (or ``{c}``) where the label goes; "openai" stands for the 80 templates
    of the CLIP paper and "simple" for its 7 best, both taken from open_clip.

    Raises:
        UsageError: no label, a label given twice or empty, a template without a place.

    >>> prompts_of(["cat"], ["a drawing of a {}", "{c}!"])
    {'cat': ['a drawing of a cat', 'cat!']}
    """
    cleaned = check_labels(labels)
    wanted = list(templates) or [DEFAULT]
    filled: dict[str, list[str]] = {label: [] for label in cleaned}
    for template in wanted:
        for label, prompts in filled.items():
            prompts.extend(_fill(template, label))
    return filled


def check_labels(labels: Sequence[str]) -> list[str]:
    """The labels without surrounding spaces.

    Raises:
        UsageError: none, an empty one, or one that is given twice.
    """
    cleaned = [label.strip() for label in labels]
    if not cleaned or not all(cleaned):
        raise UsageError(
            "There is no label." if not cleaned else "A label is empty.",
            hint="Give each label some words.",
        )
    twice = sorted({label for label in cleaned if cleaned.count(label) > 1})
    if twice:
        raise UsageError(
            f"Labels given twice: {', '.join(map(repr, twice))}.", hint="Give each label once."
        )
    return cleaned


def _fill(template: str, label: str) -> list[str]:
    if template in NAMED:
        from open_clip import OPENAI_IMAGENET_TEMPLATES, SIMPLE_IMAGENET_TEMPLATES

        both = {"openai": OPENAI_IMAGENET_TEMPLATES, "simple": SIMPLE_IMAGENET_TEMPLATES}
        return [str(make(label)) for make in both[template]]
    if "{}" not in template and "{c}" not in template:
        raise UsageError(
            f"The template {template!r} has no place for the label.",
            hint=f"Write {{}} where the label goes, or name one of: {', '.join(NAMED)}.",
        )
    return [template.replace("{}", label).replace("{c}", label)]


def read_classes(path: Path) -> dict[str, list[str]]:
    """A class-to-prompts file, JSON or TOML: ``label = ["a prompt", "another"]``.

    Raises:
        UsageError: a file that is absent, cannot be parsed or is shaped otherwise.
    """
    try:
        text = read_text(path, LARGEST_TEXT)
        data = (
            parse_toml(text, 1 << 20)
            if path.suffix == ".toml"
            else parse_json(text, LARGEST_TEXT, most=1_000_000, table=_no_twins)
        )
    except (OSError, ValueError) as error:
        raise UsageError(f"The class file {path} cannot be read: {error}") from error
    hint = 'Write {"cat": ["a photo of a cat", ...], ...} or a TOML table of lists.'
    if not isinstance(data, dict) or not data:
        raise UsageError(f"The class file {path} holds no classes.", hint=hint)
    classes: dict[str, list[str]] = {}
    for label, prompts in data.items():
        listed = [prompts] if isinstance(prompts, str) else prompts
        good = isinstance(listed, list) and all(isinstance(p, str) and p.strip() for p in listed)
        if not good or not listed:
            raise UsageError(f"The class {label!r} in {path} needs prompts.", hint=hint)
        classes[label] = listed
    check_labels(list(classes))
    return classes


def _no_twins(pairs: list[tuple[str, object]]) -> dict[str, object]:
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"the label {name!r} is given twice.")
    return dict(pairs)


def build_classifier(scorer: Scorer, classes: Mapping[str, Sequence[str]]) -> Tensor:
    """Unit vectors [C, D], a row for each class: the mean of its prompts' unit embeddings.

    Source: Radford et al. 2021, section 3.1.4 (the ensemble in embedding space).
    """
    texts = [prompt for prompts in classes.values() for prompt in prompts]
    features = scorer.embed_texts(texts)
    rows, start = [], 0
    for prompts in classes.values():
        rows.append(features[start : start + len(prompts)].mean(dim=0))
        start += len(prompts)
    return functional.normalize(torch.stack(rows), dim=-1)


def cached_classifier(
    scorer: Scorer, classes: Mapping[str, Sequence[str]], folder: Path | None
) -> Tensor:
    """As ``build_classifier``, kept in ``folder`` under the scorer's fingerprint and the prompts.

    A cache file that cannot be read, or is no classifier of these classes, is made again; a folder
    that cannot be written is only logged.
    """
    if folder is None:
        return build_classifier(scorer, classes)
    from safetensors.torch import save

    from guided.core.files import make_folder, write_bytes
    from guided.errors import GuidedError, OutputError
    from guided.zoo.safe import load_tensors

    model = getattr(scorer, "fingerprint", scorer.name)
    identity = json.dumps([model, _precision(scorer), list(classes.items()), *_windows(scorer)])
    path = folder / f"{hashlib.sha256(identity.encode()).hexdigest()}.safetensors"
    with contextlib.suppress(GuidedError, KeyError):
        cached = load_tensors(path)["classifier"]
        if cached.shape == (len(classes), scorer.width) and bool(cached.isfinite().all()):
            return cached.to(_place(scorer))
    rows = build_classifier(scorer, classes)
    try:
        write_bytes(make_folder(folder) / path.name, save({"classifier": rows.cpu().contiguous()}))
    except OutputError as error:
        logger.warning("The classifier is not cached: %s", error)
    return rows


def _precision(scorer: Scorer) -> str:
    return str(getattr(getattr(scorer, "device", None), "precision", "fp32"))


def _windows(scorer: Scorer) -> list[str]:
    """How the scorer reads long texts, where that is not the usual way."""
    long_text = getattr(getattr(scorer, "texts", None), "long_text", "cut")
    return [] if long_text == "cut" else [long_text]


def _place(scorer: Scorer) -> torch.device:
    device = getattr(scorer, "device", None)
    return torch.device("cpu") if device is None else torch.device(device.name)
