"""How to draw a portrait, in words: one instruction for each visible thing, back to front."""

from __future__ import annotations

from guided.worlds.portraits.attributes import Portrait
from guided.worlds.portraits.grammar.names import a, name

_MOUTHS = {
    "smile": "Give the face a broad smile.",
    "neutral": "Give the face a neutral expression with a straight mouth.",
    "frown": "Give the face a frown.",
    "surprised": "Give the face a surprised look with an open mouth.",
}
_BEARDS = {
    "moustache": "Put a moustache above the mouth.",
    "goatee": "Put a goatee on the chin.",
    "full": "Cover the jaw with a full beard.",
}
_GLASSES = {
    "round": "Put round glasses on the nose.",
    "square": "Put square glasses on the nose.",
    "sunglasses": "Put dark sunglasses over the eyes.",
}
_HAIR = {
    "short": "Add short {} hair.",
    "spiky": "Add spiky {} hair.",
    "curly": "Add curly {} hair.",
    "long": "Add long {} hair.",
    "bob": "Add {} hair cut in a bob.",
    "bun": "Add {} hair tied up in a bun.",
    "ponytail": "Add {} hair tied back in a ponytail.",
}


def _hair(have: dict[str, str], seen: dict[str, bool]) -> list[str]:
    if not seen["hair_style"]:
        show = f"Let a little {have['hair_color']} hair show under the hat to come."
        return [show] if seen["hair_color"] else []
    if have["hair_style"] == "bald":
        return ["Leave the head bald."]
    return [_HAIR[have["hair_style"]].format(have["hair_color"])]


def drawing_steps(portrait: Portrait) -> list[str]:
    """Instructions that name every visible attribute once, the background first, the hat last.

    Absent things are not mentioned, hidden ones neither (no eyes behind sunglasses).
    """
    have = {key: str(value) for key, value in portrait.attributes.items()}
    seen = portrait.visible()
    steps = [
        f"Fill the background with {have['background']}.",
        f"Draw the shoulders in {a(have['clothing'])} shirt.",
    ]
    if have["sign"] != "none":
        steps.append(f"Write {have['sign']} on the shirt.")
    steps.append(f"Draw an oval face with {have['skin']} skin.")
    if seen["eyes"]:
        steps.append(f"Add {have['eyes']} eyes.")
    steps.append(_MOUTHS[have["expression"]])
    steps += [_BEARDS[have["beard"]]] if have["beard"] != "none" else []
    steps += _hair(have, seen)
    if have["earrings"] != "none":
        steps.append("Hang golden earrings from the ears.")
    steps += [_GLASSES[have["glasses"]]] if have["glasses"] != "none" else []
    if have["hat"] != "none":
        steps.append(f"Top it with {a(have['hat_color'])} {name('hat', have['hat'])}.")
    return steps
