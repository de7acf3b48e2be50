"""Contrastive training on a user's own folder of captioned pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from guided.core.files import PICTURES, STEPS_FILE
from guided.core.images import center_square, open_image, to_tensor
from guided.errors import UsageError
from guided.portraits import KEYS, VALUES
from guided.portraits.attributes import COLOR_KEYS
from guided.portraits.claims import COLUMNS
from guided.training.clip_bundle import COMMON_WORDS
from guided.training.clip_pairs import PairBatch, tokenise
from guided.training.objective import Share


@dataclass(frozen=True)
class Captioned:
    """A picture's file and what is said of it."""

    file: Path
    captions: tuple[str, ...]


def captioned_files(folder: Path) -> list[Captioned]:
    """The captioned pictures below a folder, in a fixed order.

    A ``*.jsonl`` file has a line for each picture: ``{"file": ..., "captions": [...]}`` (or
    ``"caption"``; or ``"file_name"`` and ``"text"``, as image folders of the datasets library do);
    any other picture takes the lines of the text file of the same name.  The record of the run
    that made a folder is none of its captions.

    Raises:
        UsageError: no folder, a line that cannot be read, or nothing captioned in it.
    """
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}.", hint="Name a folder of your pictures.")
    found: dict[Path, tuple[str, ...]] = {}
    for table in sorted(file for file in folder.rglob("*.jsonl") if file.name != STEPS_FILE):
        for number, line in enumerate(table.read_text("utf-8").splitlines(), 1):
            if line.strip():
                entry = _entry(table, number, line)
                found[entry.file] = entry.captions
    for file in sorted(folder.rglob("*")):
        text = file.with_suffix(".txt")
        if file.suffix.lower() in PICTURES and file not in found and text.is_file():
            lines = [line.strip() for line in text.read_text("utf-8").splitlines() if line.strip()]
            if lines:
                found[file] = tuple(lines)
    if not found:
        raise UsageError(
            f"The folder {folder} holds no captioned picture.",
            hint="Put a text file beside each picture, or a .jsonl file with file and captions.",
        )
    return [Captioned(file, found[file]) for file in sorted(found)]


def _entry(table: Path, number: int, line: str) -> Captioned:
    try:
        entry = json.loads(line)
        named = entry["file_name"] if "file_name" in entry else entry["file"]
        said = entry["text"] if "text" in entry else entry.get("captions") or entry["caption"]
        captions = [said] if isinstance(said, str) else said
        return Captioned(table.parent / str(named), tuple(str(c) for c in captions))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{table}, line {number}: not a captioned picture ({error}).",
            hint='A line looks like {"file": "a.jpg", "captions": ["a red house"]}.',
        ) from error


def folder_corpus(folder: Path) -> Iterator[str]:
    """All captions of a folder, then common words."""
    for entry in captioned_files(folder):
        yield from entry.captions
    yield from COMMON_WORDS.read_text("utf-8").split()


class FolderPairs:
    """Pictures of a folder with one of their captions each; equal texts are all true together."""

    def __init__(self, folder: Path, size: int, tokenizer: PreTrainedTokenizerFast) -> None:
        self.entries = captioned_files(folder)
        self.size = size
        self.tokenizer = tokenizer
        self._kept: dict[int, Tensor] = {}

    def batch(self, share: Share) -> PairBatch:
        """This process's rows of a batch, drawn without repetition while the folder lasts."""
        draw = share.generator("pictures")
        passes = -(-share.size // len(self.entries))
        order = torch.cat(
            [torch.randperm(len(self.entries), generator=draw) for _ in range(passes)]
        )
        rows = order[: share.size].tolist()[share.rows]
        picks = torch.rand(share.size, generator=draw).tolist()[share.rows]
        texts = []
        for row, pick in zip(rows, picks, strict=True):
            said = self.entries[row].captions
            texts.append(said[int(pick * len(said))])
        images = torch.stack([self._picture(row) for row in rows])
        accepted = [set(self.entries[row].captions) for row in rows]
        true = torch.tensor([[text in captions for text in texts] for captions in accepted])
        values = sum(len(values) for values in VALUES.values())
        return PairBatch(
            pixels=images,
            tokens=tokenise(self.tokenizer, texts),
            true=true,
            codes=torch.full((len(rows), len(KEYS)), -1),
            forbidden=torch.zeros(len(texts), COLUMNS),
            seed=torch.tensor(share.number("noise")),
            excused=torch.zeros(len(rows), len(texts), dtype=torch.bool),
            unlikely=torch.zeros(len(rows), values, dtype=torch.bool),
            colors=torch.full((len(rows), len(COLOR_KEYS), 3), torch.nan),
            spoken=torch.full((len(texts), len(COLOR_KEYS), 3), torch.nan),
        )

    def close(self) -> None:
        """Forget the decoded pictures."""
        self._kept.clear()

    def _picture(self, row: int) -> Tensor:
        """A picture uint8 [3, size, size], its middle square, decoded once."""
        if row not in self._kept:
            image = center_square(open_image(self.entries[row].file), self.size)
            self._kept[row] = (to_tensor(image)[0] * 255).round().to(torch.uint8)
        return self._kept[row]
