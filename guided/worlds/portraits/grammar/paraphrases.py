"""Forty captions by hand, in words the caption grammar does not have, for judging only.

They were written before any model of this world was trained and measure how far a text encoder
carries beyond the grammar. No training may see them.
"""

from __future__ import annotations

from dataclasses import dataclass

from guided.worlds.portraits.grammar.claims import Claim


@dataclass(frozen=True)
class Paraphrase:
    """A hand-written text and what it claims of a portrait."""

    text: str
    claims: tuple[Claim, ...]


def paraphrase(text: str, **values: str) -> Paraphrase:
    """A paraphrase; each key has its allowed values, separated by spaces."""
    claims = (Claim(key, frozenset(allowed.split())) for key, allowed in values.items())
    return Paraphrase(text, tuple(claims))


_p = paraphrase
_HATS = "beanie cap tophat"
_LENSES = "round square sunglasses"

PARAPHRASES: tuple[Paraphrase, ...] = (
    _p("a grumpy redhead", expression="frown", hair_color="red"),
    _p("someone beaming with joy", expression="smile"),
    _p("a delighted baldie", expression="smile", hair_style="bald"),
    _p("a gentleman in formal headgear", hat="tophat"),
    _p("dressed for winter with a pompom on top", hat="beanie"),
    _p("a ballplayer's headwear, crimson", hat="cap", hat_color="red"),
    _p("his pupils are ringed with emerald", eyes="green"),
    _p("sapphire gaze", eyes="blue"),
    _p("honey-hued irises", eyes="amber"),
    _p("hazelnut irises, agape", eyes="brown", expression="surprised"),
    _p("jaw dropped in disbelief", expression="surprised"),
    _p("a poker face", expression="neutral"),
    _p("miserable and gloomy", expression="frown"),
    _p("it is too bright, so the eyes are hidden behind tinted lenses", glasses="sunglasses"),
    _p("a bookworm with perfectly circular lenses", glasses="round"),
    _p("boxy eyewear", glasses="square"),
    _p("somebody whose eyesight needs no help", glasses="none"),
    _p("a bookish, bespectacled soul", glasses=_LENSES),
    _p("an old-timer gone grey", hair_color="gray"),
    _p("a punk whose cotton-candy spikes stand up", hair_color="pink", hair_style="spiky"),
    _p("raven ringlets", hair_color="black", hair_style="curly"),
    _p("a towhead with a mane down past the shoulders", hair_color="blonde", hair_style="long"),
    _p("locks dyed the colour of the ocean", hair_color="blue"),
    _p("a topknot", hair_style="bun"),
    _p("tresses gathered behind in a tail", hair_style="ponytail"),
    _p("a carrot-top with a crew cut", hair_color="red", hair_style="short"),
    _p("lumberjack whiskers all over the jaw", beard="full"),
    _p("a tuft on the chin", beard="goatee"),
    _p("whiskers only beneath the nose", beard="moustache"),
    _p("cheeks and chin smooth from the razor", beard="none"),
    _p("jewellery dangles from the lobes", earrings="earrings"),
    _p("no jewellery, and nothing on the head", earrings="none", hat="none"),
    _p("clad in a lemon jumper", clothing="yellow"),
    _p("a goth all in ebony cloth", clothing="black"),
    _p("a scarlet jersey bearing no letters", clothing="red", sign="none"),
    _p("the chest spells out affection: L, O, V, E", sign="LOVE"),
    _p("a jazz fan who wears it in letters", sign="JAZZ"),
    _p("standing before a rosy curtain", background="pink"),
    _p("the scenery is the shade of fresh grass", background="green"),
    _p("a cheery fellow with something on the head, sky all around", expression="smile",
       hat=_HATS, background="blue"),
)  # fmt: skip
