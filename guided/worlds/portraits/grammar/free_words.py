"""Short texts in everyday English, as one types them to search or to prompt: for judging only.

Written by another hand than the captions of training, whose sentences none of them is.  No
training may see them, and no model may be selected by them.
"""

from __future__ import annotations

from guided.worlds.portraits.attributes import COLORS, VALUES
from guided.worlds.portraits.grammar.frames import with_articles
from guided.worlds.portraits.grammar.paraphrases import Paraphrase
from guided.worlds.portraits.grammar.paraphrases import paraphrase as _p

_HATS = "beanie cap tophat"
_LENSES = "round square sunglasses"
_BEARDS = "goatee full"
_UNSMILING = "neutral frown surprised"

FREE_PARAPHRASES: tuple[Paraphrase, ...] = (
    # hair
    _p("girl with black hair and specs", hair_color="black", glasses=_LENSES),
    _p("guy whose hair is pitch black", hair_color="black"),
    _p("dark haired man having a laugh", hair_color="black brown", expression="smile"),
    _p("a brunette lady", hair_color="brown"),
    _p("brown haired bloke with a beard", hair_color="brown", beard=_BEARDS),
    _p("blonde girl, really curly hair", hair_color="blonde", hair_style="curly"),
    _p("fair-haired man, no glasses on", hair_color="blonde", glasses="none"),
    _p("redheaded woman smiling at the camera", hair_color="red", expression="smile"),
    _p("ginger guy in a black tee", hair_color="red", clothing="black"),
    _p("old man with grey hair", hair_color="gray"),
    _p("grandma with silver hair up in a bun", hair_color="gray", hair_style="bun"),
    _p("white haired granny wearing big hoops", hair_color="white", earrings="earrings"),
    _p("a lad whose hair has gone completely white", hair_color="white"),
    _p("girl who dyed her hair blue", hair_color="blue"),
    _p("blue haired teen who looks shocked", hair_color="blue", expression="surprised"),
    _p("lady with bright pink hair", hair_color="pink"),
    _p("pink haired girl in a purple tee", hair_color="pink", clothing="purple"),
    _p("bald guy with a massive beard", hair_style="bald", beard="full"),
    _p("he's lost all his hair", hair_style="bald"),
    _p("woman with her head shaved, wearing earrings", hair_style="bald", earrings="earrings"),
    _p("woman with short hair, bareheaded", hair_style="short", hat="none"),
    _p("boy with a short haircut", hair_style="short"),
    _p("dude with spiky blond hair", hair_style="spiky", hair_color="blonde"),
    _p("hair sticking straight up like a hedgehog", hair_style="spiky"),
    _p("curly haired woman wearing green", hair_style="curly", clothing="green"),
    _p("kid with a head full of curls", hair_style="curly"),
    _p("lady with a bob haircut", hair_style="bob"),
    _p("bob cut, green wall at the back", hair_style="bob", background="green"),
    _p("man with really long hair", hair_style="long"),
    _p("long haired girl who isn't smiling", hair_style="long", expression=_UNSMILING),
    _p("her hair is tied up in a bun", hair_style="bun"),
    _p("man bun and a goatee", hair_style="bun", beard="goatee"),
    _p("a teenager with a ponytail", hair_style="ponytail"),
    _p("blonde ponytail, big grin", hair_style="ponytail", hair_color="blonde",
       expression="smile"),
    _p("woman with her hair tied back", hair_style="bun ponytail"),
    # skin
    _p("very pale guy in a red jumper", skin="pale", clothing="red"),
    _p("someone as white as a sheet", skin="pale"),
    _p("fair skinned woman in earrings", skin="light", earrings="earrings"),
    _p("man with a light complexion", skin="light"),
    _p("suntanned guy", skin="tan"),
    _p("woman with a tan in a blue tee", skin="tan", clothing="blue"),
    _p("brown skinned woman laughing", skin="brown", expression="smile"),
    _p("man with a brown complexion", skin="brown"),
    _p("dark skinned man in some kind of hat", skin="dark", hat=_HATS),
    _p("woman with a very dark complexion", skin="dark"),
    # eyes
    _p("guy with big brown eyes", eyes="brown"),
    _p("brown eyed girl in front of something yellow", eyes="brown", background="yellow"),
    _p("blue eyed blonde", eyes="blue", hair_color="blonde"),
    _p("which one has blue eyes?", eyes="blue"),
    _p("green eyed redhead", eyes="green", hair_color="red"),
    _p("somebody whose eyes are really green", eyes="green"),
    _p("woman with grey eyes", eyes="gray"),
    _p("grey eyed man with a moustache", eyes="gray", beard="moustache"),
    _p("man with amber eyes", eyes="amber"),
    _p("girl with golden amber eyes, pink backdrop", eyes="amber", background="pink"),
    # expression
    _p("guy with a huge grin", expression="smile"),
    _p("a lady who looks really happy", expression="smile"),
    _p("man with no expression on his face", expression="neutral"),
    _p("not happy, not sad, just a blank look", expression="neutral"),
    _p("boy keeping a straight face, blue backdrop", expression="neutral", background="blue"),
    _p("grumpy looking man", expression="frown"),
    _p("she looks sad", expression="frown"),
    _p("who looks like they're about to cry?", expression="frown"),
    _p("upset girl with no hat on", expression="frown", hat="none"),
    _p("man with his mouth wide open in shock", expression="surprised"),
    _p("girl who can't believe what she sees", expression="surprised"),
    _p("surprised looking woman in a white tee", expression="surprised", clothing="white"),
    # glasses
    _p("woman who doesn't wear glasses", glasses="none"),
    _p("no specs, no hat", glasses="none", hat="none"),
    _p("boy in Harry Potter glasses", glasses="round"),
    _p("lady wearing round specs", glasses="round"),
    _p("round glasses and a red jumper", glasses="round", clothing="red"),
    _p("nerdy guy with square frames", glasses="square"),
    _p("girl with chunky rectangular specs", glasses="square"),
    _p("man with his shades on", glasses="sunglasses"),
    _p("cool dude in sunnies, orange wall", glasses="sunglasses", background="orange"),
    _p("who is wearing glasses?", glasses=_LENSES),
    # hats
    _p("bareheaded man", hat="none"),
    _p("girl with no cap or hat or anything", hat="none"),
    _p("guy in a bobble hat", hat="beanie"),
    _p("teenager wearing a beanie hat", hat="beanie"),
    _p("boy in a baseball hat", hat="cap"),
    _p("woman wearing a cap and sunglasses", hat="cap", glasses="sunglasses"),
    _p("posh gentleman in a top hat", hat="tophat"),
    _p("looks like a magician with that tall hat", hat="tophat"),
    _p("who's got a hat on?", hat=_HATS),
    _p("woman in a red bobble hat", hat="beanie", hat_color="red"),
    _p("red baseball hat", hat="cap", hat_color="red"),
    _p("orange beanie on his head", hat="beanie", hat_color="orange"),
    _p("guy whose hat is orange", hat=_HATS, hat_color="orange"),
    _p("lad in a yellow cap", hat="cap", hat_color="yellow"),
    _p("lady with a yellow hat on", hat=_HATS, hat_color="yellow"),
    _p("green woolly hat, smiling", hat="beanie", hat_color="green", expression="smile"),
    _p("bloke with a green cap on", hat="cap", hat_color="green"),
    _p("blue cap and a tash", hat="cap", hat_color="blue", beard="moustache"),
    _p("kid wearing a blue wool hat", hat="beanie", hat_color="blue"),
    _p("lady in a purple top hat", hat="tophat", hat_color="purple"),
    _p("who is that in the purple hat?", hat=_HATS, hat_color="purple"),
    _p("man with a white cap on", hat="cap", hat_color="white"),
    _p("fancy white top hat", hat="tophat", hat_color="white"),
    _p("man in a tall black hat", hat="tophat", hat_color="black"),
    _p("girl wearing a black beanie hat", hat="beanie", hat_color="black"),
    # beards
    _p("man without any facial hair at all", beard="none"),
    _p("guy who has just had a shave, green tee", beard="none", clothing="green"),
    _p("dad with a mustache", beard="moustache"),
    _p("man with a little goatee", beard="goatee"),
    _p("small beard just on his chin", beard="goatee"),
    _p("guy with a big bushy beard", beard="full"),
    _p("bloke with a thick beard and a grey backdrop", beard="full", background="gray"),
    # earrings
    _p("girl with hoops in her ears", earrings="earrings"),
    _p("a man with gold earrings in", earrings="earrings"),
    _p("woman with nothing in her ears", earrings="none"),
    _p("she isn't wearing any earrings", earrings="none"),
    _p("no glasses, no earrings, nothing fancy", glasses="none", earrings="none"),
    # background
    _p("man stood by a red wall", background="red"),
    _p("all red behind her, hair in a ponytail", background="red", hair_style="ponytail"),
    _p("headshot on an orange backdrop", background="orange"),
    _p("girl standing against a yellow wall", background="yellow"),
    _p("guy in front of a green screen", background="green"),
    _p("blue behind her, like the sky", background="blue"),
    _p("purple wall, guy in square glasses", background="purple", glasses="square"),
    _p("a kid with purple in the back", background="purple"),
    _p("everything behind her is pink", background="pink"),
    _p("profile picture with a plain grey backdrop", background="gray"),
    # clothes
    _p("girl in a red tee", clothing="red"),
    _p("man wearing an orange jumper", clothing="orange"),
    _p("orange t shirt and a beard", clothing="orange", beard=_BEARDS),
    _p("woman wearing a yellow tshirt", clothing="yellow"),
    _p("kid dressed all in yellow", clothing="yellow"),
    _p("who has a blue shirt on?", clothing="blue"),
    _p("woman in a purple sweatshirt", clothing="purple"),
    _p("plain white tee with no writing", clothing="white", sign="none"),
    _p("emo kid in a black sweater", clothing="black"),
    # words on shirts
    _p("nothing written on the shirt", sign="none"),
    _p("t-shirt with LOVE written on it", sign="LOVE"),
    _p("guy with ROCK on his tee", sign="ROCK"),
    _p("JAZZ printed on a yellow tee", sign="JAZZ", clothing="yellow"),
    _p("his shirt says COOL", sign="COOL"),
    _p("STAR written across the front", sign="STAR"),
    _p("someone whose tee says MOON", sign="MOON"),
    _p("SUN written on a black shirt", sign="SUN", clothing="black"),
    _p("her t-shirt has CAT on it", sign="CAT"),
    _p("kid with DOG on his chest", sign="DOG"),
    _p("tee that reads FOX", sign="FOX"),
    _p("the one with BEE on the jumper", sign="BEE"),
    _p("guy whose shirt just says YES", sign="YES"),
    _p("a big NO on her shirt", sign="NO"),
    _p("happy woman, her shirt says HI", sign="HI", expression="smile"),
    _p("OK on a red sweater", sign="OK", clothing="red"),
    _p("shirt with WOW in big letters", sign="WOW"),
    _p("art student with ART on the front of his top", sign="ART"),
    _p("t shirt saying FUN", sign="FUN"),
)  # fmt: skip
"""Texts with one to three claims each: every value of every attribute, absence among them."""

_SAME_WORDS = {color: color for color in COLORS}
_PLAIN: dict[str, tuple[tuple[str, str], dict[str, str]]] = {
    "hair_color": (
        ("somebody who has {a} coloured hair", "they've got {a} hair"),
        {"black": "black", "brown": "brown", "blonde": "blond", "red": "ginger", "gray": "grey",
         "white": "white", "blue": "blue", "pink": "pink"},
    ),
    "hair_style": (
        ("somebody with {a}", "they've got {a}"),
        {"bald": "no hair at all", "short": "short hair", "spiky": "spiky hair",
         "curly": "curly hair", "bob": "a bob haircut", "long": "long hair",
         "bun": "their hair up in a bun", "ponytail": "a ponytail"},
    ),
    "skin": (
        ("somebody with a {a} complexion", "their skin is {a}"),
        {"pale": "very pale", "light": "fair", "tan": "tanned", "brown": "brown", "dark": "dark"},
    ),
    "eyes": (
        ("a man or woman with {a} eyes", "their eyes are {a}"),
        {"brown": "brown", "blue": "blue", "green": "green", "gray": "grey", "amber": "amber"},
    ),
    "expression": (
        ("somebody who looks {a}", "their face looks {a}"),
        {"smile": "happy", "neutral": "neutral", "frown": "sad", "surprised": "surprised"},
    ),
    "glasses": (
        ("somebody who has {a} on", "they are wearing {a}"),
        {"none": "no glasses", "round": "round glasses", "square": "square glasses",
         "sunglasses": "sunglasses"},
    ),
    "hat": (
        ("somebody who has {a} on", "they've got {a} on their head"),
        {"none": "no hat", "beanie": "a woolly hat", "cap": "a baseball cap",
         "tophat": "a top hat"},
    ),
    "hat_color": (("somebody who has a {a} hat on", "their hat is {a}"), _SAME_WORDS),
    "beard": (
        ("a guy with {a}", "he's got {a}"),
        {"none": "no beard or moustache", "moustache": "a moustache", "goatee": "a goatee",
         "full": "a big beard"},
    ),
    "earrings": (
        ("a girl who has {a} in", "she's wearing {a}"),
        {"none": "no earrings", "earrings": "earrings"},
    ),
    "background": (
        ("picture of somebody, {a} backdrop", "the colour behind them is {a}"),
        {**_SAME_WORDS, "pink": "pink", "gray": "grey"},
    ),
    "clothing": (("somebody who has a {a} tee on", "their shirt is {a}"), _SAME_WORDS),
}  # fmt: skip

FREE_PROMPTS: dict[str, dict[str, tuple[str, ...]]] = {
    key: {
        value: tuple(with_articles(template.format(a=words[value])) for template in templates)
        for value in VALUES[key]
    }
    for key, (templates, words) in _PLAIN.items()
}
"""Two prompts for each value of each attribute but the words on shirts, for zero-shot use."""

FREE_EDITS: tuple[Paraphrase, ...] = (
    _p("dye her hair blonde", hair_color="blonde"),
    _p("blue hair please", hair_color="blue"),
    _p("turn him into a redhead", hair_color="red"),
    _p("she wears her hair in a ponytail", hair_style="ponytail"),
    _p("give them curly hair", hair_style="curly"),
    _p("darker skin, nearly black", skin="dark"),
    _p("make him really pale", skin="pale"),
    _p("change her eyes to green", eyes="green"),
    _p("make her smile", expression="smile"),
    _p("he looks sad now", expression="frown"),
    _p("give her round specs", glasses="round"),
    _p("he puts his shades on", glasses="sunglasses"),
    _p("take the glasses off", glasses="none"),
    _p("someone in a beanie hat", hat="beanie"),
    _p("put a red cap on him", hat="cap", hat_color="red"),
    _p("take off the hat", hat="none"),
    _p("give him a beard", beard="full goatee"),
    _p("add a moustache", beard="moustache"),
    _p("he has had a clean shave", beard="none"),
    _p("put gold hoops in her ears", earrings="earrings"),
    _p("change the backdrop to yellow", background="yellow"),
    _p("now she's in front of a purple wall", background="purple"),
    _p("swap the shirt for a red one", clothing="red"),
    _p("same person but dressed in black", clothing="black"),
)
"""What one asks of ``guided edit``, with what it should then show."""
