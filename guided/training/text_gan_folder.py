"""Captioned pictures of a user's for a text-to-image GAN: files, JSONL tables, tar shards."""

from __future__ import annotations

import io
import json
import logging
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from guided.core.files import PICTURES
from guided.core.images import center_square, open_image, to_tensor
from guided.errors import ImageError, UsageError
from guided.portraits.attributes import KEYS
from guided.scorers.clip import ClipScorer
from guided.training.clip_folder import captioned_files
from guided.training.objective import Share
from guided.training.text_gan_world import LUCK, Looks, Mix, TextGanBatch, jittered, spoken, unit

log = logging.getLogger(__name__)

#: Fewer pictures than this and the augmentation adapts to how well the discriminator knows them.
SMALL = 10_000
#: Neighbours that are embedded together, whoever wants one: no feature depends on its company then.
GROUP = 64
_TEXTS = (".txt", ".json")


@dataclass(frozen=True)
class Entry:
    """A picture that can be opened, where it comes from, and what is said of it."""

    name: str
    open: Callable[[], Image.Image]
    captions: tuple[str, ...]


def entries_of(folder: Path) -> list[Entry]:
    """The captioned pictures of a folder in a fixed order: files and JSONL, else tar shards.

    In a shard (webdataset) KEY.jpg and KEY.txt, or KEY.json with ``caption`` or ``captions``,
    belong together.

    Raises:
        UsageError: no folder, or nothing captioned in it.
    """
    shards = sorted(folder.rglob("*.tar")) if folder.is_dir() else []
    found = [entry for shard in shards for entry in _shard(shard)]
    if found:
        return found
    return [
        Entry(str(each.file), _opener(each.file), each.captions) for each in captioned_files(folder)
    ]


def _opener(file: Path) -> Callable[[], Image.Image]:
    return lambda: open_image(file)


def _shard(path: Path) -> list[Entry]:
    """The captioned pictures of one tar file.

    Raises:
        UsageError: not a tar file, or a caption that cannot be read.
    """
    pictures: dict[str, str] = {}
    captions: dict[str, tuple[str, ...]] = {}
    try:
        with tarfile.open(path) as shard:
            for member in shard:
                key, _, kind = member.name.partition(".")
                kind = f".{kind.lower()}"
                if member.isfile() and kind in PICTURES:
                    pictures[key] = member.name
                elif member.isfile() and kind in _TEXTS:
                    captions[key] = _captions(_content(shard, member.name), kind)
    except (tarfile.TarError, OSError, ValueError, AttributeError) as error:
        raise UsageError(
            f"The shard {path} cannot be read: {' '.join(str(error).split())}.",
            hint="A shard is a tar file with KEY.jpg and KEY.txt or KEY.json for each picture.",
        ) from error
    return [
        Entry(f"{path}:{pictures[key]}", _member(path, pictures[key]), captions[key])
        for key in sorted(pictures)
        if captions.get(key)
    ]


def _content(shard: tarfile.TarFile, name: str) -> bytes:
    file = shard.extractfile(name)
    return file.read() if file is not None else b""


def _captions(content: bytes, kind: str) -> tuple[str, ...]:
    text = content.decode("utf-8")
    if kind == ".txt":
        return tuple(line.strip() for line in text.splitlines() if line.strip())
    table = json.loads(text)
    found = table.get("captions") or [table.get("caption", "")]
    return tuple(str(each) for each in found if str(each).strip())


def _member(path: Path, name: str) -> Callable[[], Image.Image]:
    def opened() -> Image.Image:
        with tarfile.open(path) as shard:
            data = _content(shard, name)
        try:
            return Image.open(io.BytesIO(data)).convert("RGB")
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise ImageError(f"{path}:{name} is not a picture: {error}.") from error

    return opened


class _Group(NamedTuple):
    """Neighbours of a folder: pictures uint8 [n, 3, S, S], their unit features [n, D], and those
    of each one's captions, n times [captions, D].
    """

    pictures: Tensor
    features: Tensor
    texts: Sequence[Tensor]


class FolderScenes:
    """Batches of a folder; everything is decoded and embedded once, when it is first wanted.

    A wrong text is that of another picture of the batch, unless CLIP finds it as fitting as texts
    usually are (the mean cosine of pictures with their own): then the row has none.
    """

    knows_facts = False

    def __init__(self, folder: Path, scorer: ClipScorer, size: int, latent: int, mix: Mix) -> None:
        self.scorer, self.size, self.latent, self.mix = scorer, size, latent, mix
        self.entries = entries_of(folder)
        if len(self.entries) < 2:
            raise UsageError(
                f"The folder {folder} holds one captioned picture; a GAN needs at least two, and "
                "learns something from hundreds."
            )
        self._groups: dict[int, _Group] = {}

    @property
    def small(self) -> bool:
        """Whether there are so few pictures that a discriminator could learn them by heart."""
        return len(self.entries) < SMALL

    @torch.no_grad()
    def batch(self, share: Share) -> TextGanBatch:
        """This process's rows of a batch, drawn without repetition while the folder lasts."""
        draw = share.generator("pictures")
        count = len(self.entries)
        order = torch.cat(
            [torch.randperm(count, generator=draw) for _ in range(-(-share.size // count))]
        )
        rows = order[: share.size][share.rows].tolist()
        luck = torch.rand(share.size, 2, LUCK, generator=draw)[share.rows]
        picks, kind = torch.rand(2, share.size, generator=draw)[:, share.rows]
        noise = torch.randn(share.size, self.scorer.width, generator=draw)[share.rows]
        z = torch.randn(share.size, self.latent, generator=draw)[share.rows]
        pictures, seen = self._pictures(rows)
        texts = self._texts(rows, picks.tolist())
        text, wrong, mismatched = self._conditions(seen, texts, kind, noise)
        return TextGanBatch(
            pictures, z, text, wrong, mismatched,
            torch.full((len(rows), len(KEYS)), -1), luck.transpose(0, 1).reshape(-1, LUCK),
        )  # fmt: skip

    def _conditions(
        self, seen: Tensor, texts: Tensor, kind: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        by_image, free = kind < self.mix.image, kind >= 1 - self.mix.free
        fits = (seen * texts).sum(1)
        mismatched = (seen * texts.roll(1, 0)).sum(1) < fits.mean()
        text = torch.where(by_image[:, None], seen, jittered(texts, noise, self.mix.noise))
        other = jittered(texts.roll(1, 0), noise, self.mix.noise)
        wrong = torch.where(by_image[:, None], seen.roll(1, 0), other)
        text[free], wrong[free], mismatched[free] = 0.0, 0.0, False
        return text, wrong, mismatched

    def _pictures(self, rows: list[int]) -> tuple[Tensor, Tensor]:
        """Pictures uint8 [n, 3, S, S], their middle squares, and their unit features [n, D]."""
        found = [(self._group(row // GROUP), row % GROUP) for row in rows]
        pictures = torch.stack([group.pictures[place] for group, place in found])
        features = torch.stack([group.features[place] for group, place in found])
        return pictures.contiguous(memory_format=torch.channels_last), features

    def _texts(self, rows: list[int], picks: list[float]) -> Tensor:
        """The unit features [n, D] of one caption of each row."""
        found = []
        for row, pick in zip(rows, picks, strict=True):
            texts = self._group(row // GROUP).texts[row % GROUP]
            found.append(texts[int(pick * len(texts))])
        return torch.stack(found)

    def _group(self, number: int) -> _Group:
        """Some neighbours, decoded and embedded when one of them is first wanted."""
        if number not in self._groups:
            if not self._groups:
                log.info("decoding and embedding %d pictures, once", len(self.entries))
            some = self.entries[number * GROUP : (number + 1) * GROUP]
            squares = [center_square(each.open(), self.size) for each in some]
            pictures = (to_tensor(squares) * 255).round().to(torch.uint8)
            texts = self.scorer.embed_texts([text for each in some for text in each.captions])
            self._groups[number] = _Group(
                pictures,
                self.scorer.embed_images(unit(pictures)).cpu(),
                torch.split(texts.cpu(), [len(each.captions) for each in some]),
            )
        return self._groups[number]

    @torch.no_grad()
    def looks(self, count: int) -> Looks:
        """Pictures spread over the folder, with a caption of their own and one of another."""
        step = max(len(self.entries) // max(count, 1), 1)
        rows = list(range(0, len(self.entries), step))[:count]
        pictures, _ = self._pictures(rows)
        texts = self._texts(rows, [0.0] * len(rows))
        words = [self.entries[row].captions[0] for row in rows]
        return Looks(unit(pictures), texts, texts.roll(1, 0), words)

    def words(self) -> list[str]:
        """Every word of the captions, in lower case, sorted."""
        return spoken(text for entry in self.entries for text in entry.captions)

    def close(self) -> None:
        """Forget the decoded pictures."""
        self._groups.clear()
