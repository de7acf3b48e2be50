"""The demo's chapter on captions: one portrait, told word by word."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guided.core.run import Step
from guided.tasks import _report as html
from guided.tasks._report import Section
from guided.tasks.base import TaskContext

if TYPE_CHECKING:
    from PIL import Image

    from guided.guidance.zerocap_sentences import Sentence
    from guided.tasks._caption_kit import CaptionKit
    from guided.worlds.portraits import Portrait


def the_caption(ctx: TaskContext, portrait: Portrait) -> Generator[Step[Any], None, Section]:
    """Caption a portrait, note what is said after each word, and mark what is wrong.

    Raises:
        MissingWeights: the kit's language model or scorer is not on this computer.
    """
    from guided.tasks._caption_kit import CaptionKit
    from guided.tasks._caption_options import Options
    from guided.worlds.portraits import draw

    kit = CaptionKit.open(Options(images=[Path("portrait")]), ctx)
    image = draw(portrait)
    told, found = yield from _written(kit, image)
    text = found[0].text
    claims = _judged(text, portrait)
    right = sum(claims.values())
    body = (
        html.paragraph(
            "A small GPT-2 that has read sentences and never seen a picture writes; after each "
            "word a CLIP says which of the likely next words fit this portrait, and the GPT-2's "
            f"memory is moved until it agrees. Of {len(claims)} things it says {right} are true. "
            "The line that was best after each word:"
        )
        + html.beside(html.figure([image], text), html.points(told))
        + _owed(kit, image, text)
        + html.points(f"{said}: {'true' if good else 'wrong'}" for said, good in claims.items())
    )
    scores = {
        "caption_precision": right / max(len(claims), 1),
        "caption_claims": float(len(claims)),
    }
    return Section("A caption, word by word", body, scores)


def _written(
    kit: CaptionKit, image: Image.Image
) -> Generator[Step[Any], None, tuple[list[str], list[Sentence]]]:
    """What the best beam said after each word, and the finished sentences, the best first."""
    told: dict[str, None] = {}
    steps = kit.decoder.write(kit.target(image)[None], kit.config, kit.captioner, kit.objective)
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            return list(told), end.value[0]
        assert step.draft is not None
        told.setdefault(step.draft.texts[0][0])
        yield Step(step.index, step.total, "a caption", step.losses)


def _judged(text: str, portrait: Portrait) -> dict[str, bool]:
    """What a caption claims of the portrait, and whether it is so."""
    from guided.worlds.portraits.grammar.claims import all_true
    from guided.worlds.portraits.judging.caption_parser import read_caption

    return {
        f"{claim.key.replace('_', ' ')} {' or '.join(sorted(claim.allowed))}": all_true(
            (claim,), portrait.attributes
        )
        for claim in read_caption(text).claims
    }


def _owed(kit: CaptionKit, image: Image.Image, text: str) -> str:
    """The picture once for each word, bright where the word comes from."""
    from guided.core.images import to_tensor
    from guided.guidance.zerocap_relevance import relevance
    from guided.language.caption_sheets import relevance_strip

    if len(text.split()) < 2:
        return ""
    words = relevance(kit.scorer, to_tensor(image).to(kit.ctx.device.torch), text)
    strip = relevance_strip(image, [(w.word, w.gain, w.map.tolist()) for w in words], columns=8)
    return html.figure([strip], "where in the picture each word comes from, and what it adds")
