"""Judge a language model without guidance: scripts/judge language gpt2-portraits

Its attributes must follow the uniform prior (total variation at most 0.05 for each) and fewer than
5 % of 1,000 sentences may repeat.  The figures go to the model's card.
"""

from __future__ import annotations

from collections.abc import Sequence

from guided.core.seeds import Seeds
from guided.judging.card import write_metrics
from guided.language.load import load_language
from guided.language.sampling import sample_tokens
from guided.worlds.portraits.judging.caption_figures import prior_distances, repeated
from guided.worlds.portraits.judging.caption_parser import read_caption
from guided.worlds.portraits.tools import tool_parser
from guided.zoo.cards import CARD_FILE

LIMIT_DISTANCE, LIMIT_REPEATS, REPEATS_OF = 0.05, 0.05, 1000
UNREAD = 0.2


def main(arguments: Sequence[str] | None = None) -> int:
    """Print every figure; exit 1 if one is over its limit."""
    parser = tool_parser("judge language", __doc__)
    parser.add_argument("name", help="a shipped name or local-dir:FOLDER")
    parser.add_argument("--count", type=int, default=40_000)
    parser.add_argument("--batch", type=int, default=250)
    parser.add_argument("--dry", action="store_true", help="leave the card alone")
    given = parser.parse_args(arguments)
    speaker = load_language(given.name)
    language = speaker.language
    texts: list[str] = []
    for first in range(0, given.count, given.batch):
        rows = sample_tokens(
            language,
            Seeds.of(first, min(given.batch, given.count - first)),
            prompt=[language.begin],
            end=language.begin,
            length=language.positions - 2,
        )
        texts += [language.decode(row) for row in rows]
    readings = [read_caption(text) for text in texts]
    captions = [reading for reading in readings if reading.unread <= UNREAD and reading.claims]
    distances = prior_distances(captions)
    repeats = repeated(texts[:REPEATS_OF])
    for text in texts[:12]:
        print(f"    {text}")
    for key, distance in distances.items():
        print(f"{key:12s} total variation {distance:.3f}  (limit {LIMIT_DISTANCE})")
    print(f"repeats      {repeats:.3f} of {min(REPEATS_OF, len(texts))}  (limit {LIMIT_REPEATS})")
    print(f"captions     {len(captions)} of {len(texts)} sentences")
    if not given.dry:
        metrics = {
            "prior_distance_max": {"value": max(distances.values()), "ceiling": 0.0},
            "repeats": {"value": repeats, "ceiling": 0.0},
        }
        write_metrics(speaker.folder / CARD_FILE, metrics)
    return int(max(distances.values()) > LIMIT_DISTANCE or repeats > LIMIT_REPEATS)
