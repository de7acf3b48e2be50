"""The wording of captions: synonyms and phrase templates of the TRAIN style.

Templates are keyed by topic and kind of term, then by role:

    adjective   before a noun            "blue-eyed"
    modifier    after a noun             "with blue eyes"
    noun        a thing one has or wears "blue eyes"
    verb        after "who"              "has blue eyes"
    clause      a sentence               "the eyes are blue"

``{a}`` and ``{b}`` are the words for the topic's first and second key, ``{A}`` and ``{B}`` always
the first synonym (for compounds such as "long-haired"). The article before a vowel is put right
when a template is filled.
"""

from __future__ import annotations

from typing import Literal

Role = Literal["adjective", "modifier", "noun", "verb", "clause"]
Templates = dict[Role, tuple[str, ...]]
Words = dict[str, dict[str, tuple[str, ...]]]
Table = dict[tuple[str, str], Templates]

TRAIN_WORDS: Words = {
    "hair_color": {
        "black": ("black", "jet-black"), "brown": ("brown", "chestnut"),
        "blonde": ("blonde", "golden", "blond"), "red": ("red", "ginger"),
        "gray": ("gray", "silver", "grey"),
        "white": ("white", "snow-white"), "blue": ("blue", "bright blue"), "pink": ("pink",),
    },
    "hair_style": {"short": ("short", "cropped"), "long": ("long", "flowing")},
    "skin": {
        "pale": ("pale", "very pale"), "light": ("light", "fair"), "tan": ("tan", "tanned"),
        "dark": ("dark", "very dark"),
    },
    "eyes": {"gray": ("gray", "grey")},
    "hat": {
        "beanie": ("beanie", "knit hat"), "cap": ("cap", "baseball cap"),
        "tophat": ("top hat",), "any": ("hat",),
    },
    "hat_color": {"purple": ("purple", "violet")},
    "clothing": {"purple": ("purple", "violet")},
    "background": {"purple": ("purple", "violet"), "gray": ("gray", "grey")},
}  # fmt: skip

TRAIN_TABLE: Table = {
    ("hair", "bald"): {
        "adjective": ("bald", "bald-headed"),
        "modifier": ("with a bald head", "with no hair", "who is bald"),
        "noun": ("a bald head", "no hair"),
    },
    ("hair", "color"): {
        "adjective": ("{B}-haired",),
        "modifier": ("with {b} hair", "whose hair is {b}"),
        "noun": ("{b} hair",),
    },
    ("hair", "style"): {
        "adjective": ("{A}-haired",),
        "modifier": ("with {a} hair", "whose hair is {a}"),
        "noun": ("{a} hair",),
    },
    ("hair", "stylecolor"): {
        "modifier": ("with {a} {b} hair", "with {a}, {b} hair", "whose hair is {a} and {b}"),
        "noun": ("{a} {b} hair",),
    },
    ("hair", "noun"): {
        "modifier": ("with a {a}", "with hair in a {a}", "whose hair is in a {a}"),
        "noun": ("a {a}", "hair in a {a}"),
    },
    ("hair", "nouncolor"): {
        "modifier": ("with a {b} {a}", "with {b} hair in a {a}", "with {b} hair worn in a {a}"),
        "noun": ("a {b} {a}", "{b} hair in a {a}"),
    },
    ("skin", "any"): {
        "adjective": ("{A}-skinned",),
        "modifier": ("with {a} skin", "whose skin is {a}"),
        "noun": ("{a} skin", "a {A} skin tone"),
    },
    ("eyes", "any"): {
        "adjective": ("{A}-eyed",),
        "modifier": ("with {a} eyes", "whose eyes are {a}"),
        "noun": ("{a} eyes", "{a}-colored eyes"),
    },
    ("expression", "smile"): {
        "adjective": ("smiling", "happy", "cheerful", "grinning"),
        "modifier": ("smiling", "with a smile", "with a happy face"),
        "noun": ("a smile", "a big smile", "a happy face"),
    },
    ("expression", "neutral"): {
        "adjective": ("calm", "expressionless", "straight-faced"),
        "modifier": ("with a neutral expression", "looking calm", "with a straight face"),
        "noun": ("a neutral expression", "a calm face", "a straight face"),
    },
    ("expression", "frown"): {
        "adjective": ("frowning", "sad", "unhappy"),
        "modifier": ("frowning", "with a frown", "with a sad face"),
        "noun": ("a frown", "a sad face", "an unhappy face"),
    },
    ("expression", "surprised"): {
        "adjective": ("surprised", "astonished", "shocked"),
        "modifier": ("looking surprised", "with a surprised face", "looking astonished"),
        "noun": ("a surprised face", "a shocked look", "an astonished face"),
    },
    ("expression", "unsmiling"): {
        "adjective": ("unsmiling",),
        "modifier": ("not smiling", "who is not smiling", "without a smile"),
        "noun": ("no smile",),
    },
    ("glasses", "none"): {
        "modifier": ("without glasses", "with no glasses", "not wearing glasses"),
        "noun": ("no glasses",),
    },
    ("glasses", "round"): {
        "modifier": ("wearing round glasses", "with round glasses", "in round spectacles"),
        "noun": ("round glasses", "round spectacles", "circular glasses"),
    },
    ("glasses", "square"): {
        "modifier": ("wearing square glasses", "with square glasses", "in square spectacles"),
        "noun": ("square glasses", "square spectacles", "rectangular glasses"),
    },
    ("glasses", "sunglasses"): {
        "modifier": ("wearing sunglasses", "with sunglasses", "in dark sunglasses"),
        "noun": ("sunglasses", "dark sunglasses", "dark glasses"),
    },
    ("glasses", "any"): {
        "modifier": ("wearing glasses", "with glasses"),
        "noun": ("glasses",),
    },
    ("hat", "none"): {
        "modifier": ("without a hat", "with no hat", "not wearing a hat"),
        "noun": ("no hat",),
    },
    ("hat", "kind"): {
        "modifier": ("wearing a {a}", "with a {a}", "in a {a}"),
        "noun": ("a {a}",),
    },
    ("hat", "kindcolor"): {
        "modifier": ("wearing a {b} {a}", "with a {b} {a}", "in a {b} {a}"),
        "noun": ("a {b} {a}",),
    },
    ("beard", "none"): {
        "adjective": ("clean-shaven",),
        "modifier": ("without facial hair", "with no facial hair", "with a clean-shaven face"),
        "noun": ("no facial hair", "a clean-shaven face"),
    },
    ("beard", "moustache"): {
        "adjective": ("moustached",),
        "modifier": ("with a moustache", "with a mustache", "who has a moustache"),
        "noun": ("a moustache", "a mustache"),
    },
    ("beard", "goatee"): {
        "adjective": ("goateed",),
        "modifier": ("with a goatee", "with a chin beard", "who has a goatee"),
        "noun": ("a goatee", "a chin beard"),
    },
    ("beard", "full"): {
        "modifier": ("with a full beard", "with a bushy beard", "who has a full beard"),
        "noun": ("a full beard", "a bushy beard"),
    },
    ("beard", "bearded"): {
        "adjective": ("bearded",),
        "modifier": ("with a beard", "who has a beard"),
        "noun": ("a beard",),
    },
    ("beard", "hairy"): {
        "modifier": ("with facial hair", "who has facial hair"),
        "noun": ("facial hair",),
    },
    ("beard", "unbearded"): {
        "adjective": ("beardless",),
        "modifier": ("without a beard", "with no beard"),
        "noun": ("no beard",),
    },
    ("earrings", "none"): {
        "modifier": ("without earrings", "with no earrings", "with bare ears"),
        "noun": ("no earrings",),
    },
    ("earrings", "earrings"): {
        "modifier": ("wearing earrings", "with gold earrings", "with hoop earrings"),
        "noun": ("earrings", "gold earrings", "hoop earrings"),
    },
    ("background", "any"): {
        "modifier": (
            "against a {a} background", "on a {a} background", "in front of a {a} wall",
            "with a {a} background",
        ),
        "noun": ("a {a} background",),
        "clause": ("the background is {a}", "the wall behind is {a}"),
    },
    ("shirt", "color"): {
        "modifier": ("in a {a} shirt", "wearing a {a} shirt", "dressed in {a}", "in a {a} top"),
        "noun": ("a {a} shirt", "a {a} T-shirt", "a {a} top", "{a} clothes"),
    },
    ("shirt", "plain"): {
        "modifier": ("in a plain shirt", "with no word on the shirt", "wearing a plain top"),
        "noun": ("a plain shirt", "a shirt without words", "a plain top"),
    },
    ("shirt", "word"): {
        "modifier": (
            "in a shirt that says {b}", "with the word {b} on the shirt",
            "wearing a shirt with the word {b}",
        ),
        "noun": ("a shirt that says {b}", "a shirt with the word {b}", "a top reading {b}"),
    },
    ("shirt", "colorplain"): {
        "modifier": ("in a plain {a} shirt", "wearing a plain {a} shirt", "in a plain {a} top"),
        "noun": ("a plain {a} shirt", "a {a} shirt without words", "a plain {a} top"),
    },
    ("shirt", "colorword"): {
        "modifier": (
            "in a {a} shirt that says {b}", "with the word {b} on the {a} shirt",
            "wearing a {a} top with the word {b}",
        ),
        "noun": ("a {a} shirt that says {b}", "a {a} shirt with the word {b}",
                 "a {a} top reading {b}"),
    },
}  # fmt: skip
