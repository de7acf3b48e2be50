"""Short tags of a portrait, one for each thing that can be seen."""

from __future__ import annotations

from guided.worlds.portraits.attributes import Portrait
from guided.worlds.portraits.grammar.names import name
from guided.worlds.portraits.grammar.terms import NOUN_STYLES


def tags(portrait: Portrait) -> list[str]:
    """Tags such as "blue hair", "long hair", "smiling", "red cap", "word LOVE"; never of absences.

    >>> from guided.worlds.portraits.splits import sample
    >>> tags(sample(1))[-1].endswith("background")
    True
    """
    have = {key: str(value) for key, value in portrait.attributes.items()}
    seen = portrait.visible()
    found: list[str] = []
    if seen["hair_color"]:
        found.append(f"{have['hair_color']} hair")
    if seen["hair_style"]:
        style = have["hair_style"]
        found.append(style if style in NOUN_STYLES or style == "bald" else f"{style} hair")
    found.append(f"{have['skin']} skin")
    if seen["eyes"]:
        found.append(f"{have['eyes']} eyes")
    neutral = have["expression"] == "neutral"
    found.append("neutral expression" if neutral else name("expression", have["expression"]))
    found += [name(key, have[key]) for key in ("glasses", "beard", "earrings")
              if have[key] != "none"]  # fmt: skip
    if have["hat"] != "none":
        found.append(f"{have['hat_color']} {name('hat', have['hat'])}")
    found.append(f"{have['clothing']} shirt")
    if have["sign"] != "none":
        found.append(f"word {have['sign']}")
    return [*found, f"{have['background']} background"]
