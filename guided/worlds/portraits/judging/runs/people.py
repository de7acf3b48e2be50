"""Judge the models that know people: the identity embedder, the inversion encoder.

scripts/judge people identity [--count 500] [--dry]
scripts/judge people inverter [--count 500] [--dry]

The first is asked who is who on people in several sets of attributes; of the second the reader
says what is left of a portrait that was inverted and drawn again.  Figures go to the model's card.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from guided.judging.card import write_metrics
from guided.scorers.identity import load_identity
from guided.worlds.portraits.splits import Split
from guided.worlds.portraits.tools import tool_parser
from guided.zoo import find
from guided.zoo.cards import CARD_FILE
from guided.zoo.kits import load_kit

SPLITS: dict[Split, str] = {"val": "new", "test": "pairs"}
Table = dict[str, dict[str, float]]


def identity(name: str, split: Split, label: str, count: int) -> Table:
    """Verification, and how far one changed attribute moves the cosine, clean and blurred."""
    from guided.worlds.portraits.training.identity import figures
    from guided.worlds.portraits.training.person_pairs import people

    embedder = load_identity(find(name, "identity").path)
    measured = figures(embedder.embed_images, people(split, 0, count, 128), label)
    return {
        key: {"value": m.value, "floor": float(m.floor or 0), "ceiling": float(m.ceiling or 0)}
        for key, m in measured.items()
    }


def inverter(name: str, split: Split, label: str, count: int) -> Table:
    """Visible attributes, pixels and identity after inversion by the kit's generator."""
    from guided.generators.e4e import load_inverter
    from guided.generators.stylegan2 import load_stylegan2
    from guided.worlds.portraits.judging.inversion_figures import inversion_figures, redrawer
    from guided.worlds.portraits.judging.reader import Reader

    kit = load_kit("portraits")
    generator = load_stylegan2(find(kit["generator"], "generator").path)
    encoder = load_inverter(find(name, "inverter").path, generator.average)
    with torch.no_grad():
        middle = generator.render(generator.middle())[0]
    found = inversion_figures(
        redrawer(generator, encoder), middle, Reader.load(kit["reader"]),
        load_identity(find(kit["identity"], "identity").path), split, count, generator.size,
    )  # fmt: skip
    return {
        f"{label}_{key}": {"value": f.rate.value, "floor": f.floor, "ceiling": float(f.ceiling)}
        for key, f in found.items()
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Print every figure with floor and ceiling; keep them on the card unless --dry."""
    parser = tool_parser("judge people", __doc__)
    parser.add_argument("role", choices=("identity", "inverter"))
    parser.add_argument("--name", default="", help="the model; default: the portraits kit's")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--dry", action="store_true", help="leave the card alone")
    given = parser.parse_args(arguments)
    name = given.name or load_kit("portraits")[given.role]
    measure = {"identity": identity, "inverter": inverter}[given.role]
    metrics: Table = {}
    for split, label in SPLITS.items():
        part = measure(name, split, label, given.count)
        for key, row in part.items():
            print(f"{key:32s} {row['value']:.4f}  floor {row['floor']:.4f}  "
                  f"ceiling {row['ceiling']:.4f}")  # fmt: skip
        metrics |= part
    if not given.dry:
        write_metrics(find(name, given.role).folder / CARD_FILE, metrics)
    return 0
