"""Pack shipped weights to int8 per channel: scripts/build pack NAME... [--version 0.1.0]

Each NAME is a shipped model as its training left it, in half precision.  Models that know the CLIP
or the autoencoder by their sha256 are told the new one.  Figures must be measured again afterwards:
scripts/judge.
"""

from __future__ import annotations

from collections.abc import Sequence

from guided.scorers.clip_files import CONFIG
from guided.scorers.clip_files import find as find_clip
from guided.worlds.portraits.tools import tool_parser
from guided.zoo.cards import CARD_FILE
from guided.zoo.checksums import fresh_digest
from guided.zoo.folders import SHIPPED
from guided.zoo.repack import rename_digests, repack

#: Large tensors that int8 would spoil, by model.
HALF = {"reader": ("domain_whiten",)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Pack every model named on the command line, then correct those that name it."""
    there = sorted(path.parent.name for path in SHIPPED.glob(f"*/{CARD_FILE}"))
    parser = tool_parser("build pack", __doc__)
    parser.add_argument("names", nargs="+", metavar="NAME", choices=there, help=", ".join(there))
    parser.add_argument("--version", default="", help="the version that shipped them as they are")
    given = parser.parse_args(arguments)
    digests: dict[str, str] = {}
    for name in given.names:
        before = identity(name)
        card = repack(SHIPPED / name, HALF.get(name, ()), given.version)
        digests |= dict(zip(before, identity(name), strict=True))
        print(f"{name}: {card.size} bytes, {card.sha256}")
    for name in there:
        rename_digests(SHIPPED / name, digests)
    return 0


def identity(name: str) -> list[str]:
    """What other models know a model by: the sha256 of its file, of a CLIP that of its folder."""
    folder = SHIPPED / name
    if (folder / CONFIG).is_file():
        return [find_clip(f"local-dir:{folder}").fingerprint()]
    return [fresh_digest(path) for path in sorted(folder.glob("vae/*.safetensors"))]
