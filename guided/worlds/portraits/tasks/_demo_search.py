"""The demo's chapter on search: an index of new portraits, three queries, zero-shot classes."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guided.core.run import Step
from guided.tasks import _report as html
from guided.tasks._report import Section
from guided.tasks.base import TaskContext

if TYPE_CHECKING:
    from PIL import Image

    from guided.scorers.clip import ClipScorer
    from guided.worlds.portraits import Portrait

#: Words and what they say, to mark the right results.
QUERIES: tuple[tuple[str, dict[str, str]], ...] = (
    ("a person with pink hair", {"hair_color": "pink"}),
    ("someone frowning who wears a red shirt", {"expression": "frown", "clothing": "red"}),
    ("a person without a hat, wearing sunglasses", {"glasses": "sunglasses", "hat": "none"}),
)
COUNT, SHOWN = 160, 6


def the_search(ctx: TaskContext) -> Generator[Step[Any], None, Section]:
    """Index new portraits, answer three queries, and classify from words alone."""
    from guided.worlds.portraits import draw, sample

    scorer = ctx.models.scorer
    people = [sample(ctx.seed_at(2_000_000 + index), "val") for index in range(COUNT)]
    images = []
    for index, person in enumerate(people):
        images.append(draw(person))
        if index % 16 == 15:
            yield Step(index + 1, COUNT, "portraits to search")
    rows, right = yield from _answers(scorer, people, images)
    accuracies = yield from _classes(scorer, people, images)
    mean = sum(accuracies.values()) / len(accuracies)
    body = (
        html.paragraph(
            f"A CLIP of 3.6 million parameters embeds {COUNT} new portraits; the index finds "
            "pictures by words. Results that fit every word are in bold."
        )
        + "".join(rows)
        + html.paragraph(
            f"The same model sorts pictures into classes it only knows by name. It picks the right "
            f"value of an attribute in {mean:.1%} of the cases a viewer could tell:"
        )
        + html.bars(accuracies)
    )
    scores = {"search_precision": right, "zero_shot": mean}
    return Section("Search by words", body, scores)


def _answers(
    scorer: ClipScorer, people: Sequence[Portrait], images: Sequence[Image.Image]
) -> Generator[Step[Any], None, tuple[list[str], float]]:
    """A heading and a row of pictures for each query, and the share of results that fit."""
    from guided.retrieval.scan import survey
    from guided.retrieval.search import Query, Searcher, embed_query
    from guided.retrieval.store import open_store
    from guided.tasks._index_update import IndexingOptions, update_index

    rows, fits, places = [], 0, 0
    with tempfile.TemporaryDirectory() as room:
        folder, place = Path(room, "pictures"), Path(room, "index")
        folder.mkdir()
        for index, image in enumerate(images):
            image.save(folder / f"{index:04d}.png", compress_level=1)
        yield from update_index(scorer, survey(folder), place, IndexingOptions())
        with open_store(place) as store:
            searcher = Searcher(store)
            for number, (words, wanted) in enumerate(QUERIES):
                figures = []
                there = sum(_fits(person, wanted) for person in people)
                hits = searcher(embed_query(scorer, Query(words, [], [])), SHOWN)
                for rank, hit in enumerate(hits):
                    index = int(Path(hit.file).stem)
                    good = _fits(people[index], wanted)
                    if rank < there:
                        fits, places = fits + good, places + 1
                    told = f"{hit.score:.2f}"
                    caption = f"<b>{told}</b>" if good else told
                    figures.append(html.figure([images[index]], words, caption))
                rows.append(html.paragraph(f"“{words}”") + html.grid(figures, 110))
                yield Step(number + 1, len(QUERIES), "search")
    return rows, fits / max(places, 1)


def _fits(person: Portrait, wanted: dict[str, str]) -> bool:
    return all(person.attributes[key] == value for key, value in wanted.items())


def _classes(
    scorer: ClipScorer, people: Sequence[Portrait], images: Sequence[Image.Image]
) -> Generator[Step[Any], None, dict[str, float]]:
    """Zero-shot accuracy by attribute on the portraits that show it."""
    import torch

    from guided.core.images import to_tensor
    from guided.worlds.portraits import KEYS, VALUES
    from guided.worlds.portraits.grammar.frames import TRAIN
    from guided.worlds.portraits.judging.clip_figures import classifier

    with torch.no_grad():
        seen = torch.cat(
            [
                scorer.embed_images(to_tensor(list(images[start : start + 32])))
                for start in range(0, len(images), 32)
            ]
        )
    found = {}
    keys = [key for key in KEYS if key != "sign"]
    for number, key in enumerate(keys):
        weights = classifier(scorer.embed_texts, key, VALUES[key], TRAIN)
        best = (seen @ weights.T).argmax(1).tolist()
        shown = [i for i, person in enumerate(people) if person.visible()[key]]
        hits = [VALUES[key][best[i]] == people[i].attributes[key] for i in shown]
        found[key.replace("_", " ")] = sum(hits) / max(len(hits), 1)
        yield Step(number + 1, len(keys), "zero-shot classes")
    return found
