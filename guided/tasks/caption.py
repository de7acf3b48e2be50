"""Describe pictures in words, without any training on captions of pictures.

A language model writes word by word while CLIP says which next words fit the picture
(ZeroCap).  With ``plus`` and ``minus`` the target is a sum of pictures and texts.  Folders are
captioned file by file into ``captions.jsonl`` and ``captions.csv``, and go on where they stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guided.core.listing import images_in
from guided.core.run import LazyImages, OutputImage, Result, Step, renumber
from guided.core.text import absolute
from guided.errors import ImageError, UsageError
from guided.tasks._caption_options import CaptionOptions, Options
from guided.tasks._ledger import note_rows
from guided.tasks.base import Steps, TaskContext

__all__ = ["Options", "needs", "run"]

if TYPE_CHECKING:
    from PIL import Image

    from guided.core.journal import Journal
    from guided.guidance.zerocap_sentences import Sentence
    from guided.tasks._caption_kit import CaptionKit


def needs(options: CaptionOptions) -> tuple[str, ...]:
    """The kit's roles this verb loads."""
    return ("scorer", "language")


def run(options: CaptionOptions, ctx: TaskContext) -> Steps:
    """Caption every picture, a batch of files at a time, yielding a Step a word."""
    from guided.tasks._caption_kit import CaptionKit

    files = listed(options.images, ctx)
    kit = CaptionKit.open(options, ctx)
    journal = _journal(kit)
    size = options.batch
    batches = [files[start : start + size] for start in range(0, len(files), size)]
    rows: list[dict[str, Any]] = []
    for number, batch in enumerate(batches):
        rows += yield from _batch(kit, batch, journal, number, len(batches))
        note_rows(ctx, len(rows), len(files))
    return _result(kit, rows)


def listed(images: Sequence[Path], ctx: TaskContext) -> list[Path]:
    """The files asked for, folders searched, each once, with absolute paths.

    Raises:
        UsageError: a folder without pictures, or a file that is not there.
    """
    found: dict[Path, None] = {}
    for given in images:
        if str(given) in ctx.given:
            found[given] = None
            continue
        path = absolute(given)
        if path.is_dir():
            found.update(dict.fromkeys(images_in(path)))
        elif path.exists():
            found[path] = None
        else:
            raise UsageError(
                f"There is no file or folder {path}.",
                hint="Name picture files, or folders whose pictures are to be captioned.",
            )
    return list(found)


def _journal(kit: CaptionKit) -> Journal | None:
    """The record of finished files, where the run has a folder."""
    if kit.ctx.folder is None:
        return None
    from guided.core.journal import Journal
    from guided.language.caption_files import LINES

    settings = kit.options.model_dump(mode="json", exclude={"images", "sheet", "relevance"})
    models = {"scorer": kit.scorer.fingerprint, "language": kit.speaker.language.fingerprint}
    settings |= {**models, "device": kit.ctx.device.name}
    journal = Journal(kit.ctx.folder, settings, lines=LINES, afresh=kit.ctx.force)
    kit.ctx.own.add(LINES)
    return journal


def _batch(
    kit: CaptionKit, files: Sequence[Path], journal: Journal | None, number: int, count: int
) -> Generator[Step[Any], None, list[dict[str, Any]]]:
    """The rows of some files; a batch the journal already has is not captioned again.

    The files of a batch are captioned together or not at all, so that a resumed run computes what
    an uninterrupted one would.
    """
    import torch

    opened, rows = _opened(kit, files)
    if journal is not None and all(_same(journal.done.get(row["file"]), row) for row in rows):
        return [journal.done[row["file"]] for row in rows]
    if opened:
        targets = torch.stack([kit.target(image) for image in opened.values()])
        steps = kit.decoder.write(targets, kit.config, kit.captioner, kit.objective)
        several = yield from renumber(steps, number, count)
        told = dict(zip(opened, several, strict=True))
        for row in rows:
            if row["file"] in told:
                row["captions"] = [_caption(sentence) for sentence in told[row["file"]]]
    if journal is not None:
        journal.add(rows)
    return rows


def _opened(
    kit: CaptionKit, files: Sequence[Path]
) -> tuple[dict[str, Image.Image], list[dict[str, Any]]]:
    """The pictures that can be read, by file, and a row for every file."""
    opened: dict[str, Image.Image] = {}
    rows: list[dict[str, Any]] = []
    for file in files:
        try:
            image = opened[str(file)] = kit.ctx.open_image(file)
            rows.append({"file": str(file), "content": _content(image)})
        except ImageError as error:
            rows.append({"file": str(file), "error": str(error)})
    return opened, rows


def _content(image: Image.Image) -> str:
    """A digest of the pixels, by which a picture that was changed is known."""
    return hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()[:16]


def _same(kept: dict[str, Any] | None, row: dict[str, Any]) -> bool:
    """Whether a finished row is of the same picture (or the same error)."""
    return kept is not None and all(kept.get(key) == value for key, value in row.items())


def _caption(sentence: Sentence) -> dict[str, Any]:
    return {
        "text": sentence.text,
        "clip": round(sentence.clip, 6),
        "language": round(sentence.language, 6),
        "total": round(sentence.total, 6),
    }


def _result(kit: CaptionKit, rows: list[dict[str, Any]]) -> Result:
    """The answer, the files of a saved run, and the pictures asked for."""
    from guided.core.journal import as_lines
    from guided.language.caption_files import LINES, TABLE, as_table

    good = [row for row in rows if "captions" in row]
    bad = [{"file": row["file"], "error": row["error"]} for row in rows if "error" in row]
    results = [{"file": row["file"], "captions": row["captions"]} for row in good]
    answer: dict[str, Any] = {"results": results, "errors": bad} if bad else {"results": results}
    files: dict[str, str | bytes] = {}
    if kit.ctx.folder is not None:
        files = {LINES: as_lines(rows), TABLE: as_table(rows)}
    best = [row["captions"][0] for row in good]
    names = ("clip", "language", "total") if best else ()
    scores = {name: sum(caption[name] for caption in best) / len(best) for name in names}
    pictures = [kit.ctx.saved(picture) for picture in _pictures(kit, good)]
    return Result(answer, pictures, files, scores)


def _pictures(kit: CaptionKit, rows: Sequence[dict[str, Any]]) -> Iterator[OutputImage]:
    """The contact sheet and the relevance pictures, if asked for."""
    from guided.language.caption_sheets import caption_sheet

    if kit.options.sheet and rows:
        images = LazyImages(len(rows), lambda i: kit.ctx.open_image(rows[i]["file"]))
        texts = [row["captions"][0]["text"] for row in rows]
        parents = tuple(row["file"] for row in rows if row["file"] not in kit.ctx.given)
        yield OutputImage("sheet.png", caption_sheet(images, texts), parents)
    if kit.options.relevance:
        for number, row in enumerate(rows):
            text = row["captions"][0]["text"]
            if len(text.split()) > 1:
                yield _relevance(kit, number, row["file"], text)


def _relevance(kit: CaptionKit, number: int, file: str, text: str) -> OutputImage:
    """The picture once for each word of its best caption, bright where the word comes from."""
    from guided.core.files import safe_name
    from guided.core.images import to_tensor
    from guided.guidance.zerocap_relevance import relevance
    from guided.language.caption_sheets import relevance_strip

    image = kit.ctx.open_image(file)
    found = relevance(kit.scorer, to_tensor(image).to(kit.ctx.device.torch), text)
    strip = relevance_strip(image, [(word.word, word.gain, word.map.tolist()) for word in found])
    name = f"relevance/{number:04}-{safe_name(Path(file).stem)}.png"
    parents = () if file in kit.ctx.given else (file,)
    return OutputImage(name, strip, parents, {"text": text})
