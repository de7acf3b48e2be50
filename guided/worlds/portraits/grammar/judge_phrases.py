"""The wording of the captions a judge learns from: other templates and synonyms than TRAIN's.

Laid out as ``guided.worlds.portraits.grammar.phrases``, with the roles noun, verb and clause.
"""

from __future__ import annotations

from guided.worlds.portraits.grammar.phrases import Table, Words

JUDGE_WORDS: Words = {
    "hair_color": {
        "black": ("black", "raven"), "brown": ("brown", "brunette"), "blonde": ("blonde", "blond"),
        "red": ("red", "auburn"), "gray": ("gray", "grey"), "pink": ("pink", "rosy pink"),
    },
    "hair_style": {"short": ("short", "short-cropped"), "curly": ("curly", "frizzy")},
    "skin": {"pale": ("pale", "porcelain"), "dark": ("dark", "deep brown")},
    "hat": {
        "beanie": ("beanie", "woolly hat"), "cap": ("cap", "peaked cap"),
        "tophat": ("top hat", "topper"), "any": ("hat",),
    },
}  # fmt: skip

JUDGE_TABLE: Table = {
    ("hair", "bald"): {
        "noun": ("a hairless head", "a bald scalp"),
        "verb": ("is bald", "has lost all hair", "has no hair on the head"),
        "clause": ("the head is bald", "there is no hair"),
    },
    ("hair", "color"): {
        "noun": ("{b} hair", "{b} locks"),
        "verb": ("has {b} hair",),
        "clause": ("the hair is {b}", "the hair color is {b}"),
    },
    ("hair", "style"): {
        "noun": ("{a} hair", "a {a} hairstyle"),
        "verb": ("has {a} hair", "wears {a} hair"),
        "clause": ("the hair is {a}", "the hairstyle is {a}"),
    },
    ("hair", "stylecolor"): {
        "noun": ("{a} {b} hair", "hair that is {a} and {b}"),
        "verb": ("has {a} {b} hair", "has {b} hair that is {a}"),
        "clause": ("the hair is {b} and {a}", "the {b} hair is {a}"),
    },
    ("hair", "noun"): {
        "noun": ("a {a}", "a {a} hairstyle"),
        "verb": ("has a {a}", "wears a {a}"),
        "clause": ("the hairstyle is a {a}", "the hair makes a {a}"),
    },
    ("hair", "nouncolor"): {
        "noun": ("a {a} of {b} hair", "a {b} {a}"),
        "verb": ("has a {a} of {b} hair", "has {b} hair in a {a}"),
        "clause": ("the {b} hair is in a {a}", "the hairstyle is a {b} {a}"),
    },
    ("skin", "any"): {
        "noun": ("{a} skin", "a {a} complexion"),
        "verb": ("has {a} skin", "has a {a} complexion"),
        "clause": ("the skin is {a}", "the complexion is {a}"),
    },
    ("eyes", "any"): {
        "noun": ("{a} eyes", "a pair of {a} eyes"),
        "verb": ("has {a} eyes", "looks out of {a} eyes"),
        "clause": ("the eyes are {a}", "the eye color is {a}"),
    },
    ("expression", "smile"): {
        "noun": ("a broad smile", "a joyful face"),
        "verb": ("is smiling", "looks happy", "smiles"),
        "clause": ("the mouth is smiling", "the mood is happy"),
    },
    ("expression", "neutral"): {
        "noun": ("a blank expression", "a neutral face"),
        "verb": ("looks neutral", "shows no emotion", "keeps a straight face"),
        "clause": ("the expression is neutral", "the mouth is a straight line"),
    },
    ("expression", "frown"): {
        "noun": ("a deep frown", "a gloomy face"),
        "verb": ("is frowning", "looks sad", "frowns"),
        "clause": ("the mouth is frowning", "the mood is sad"),
    },
    ("expression", "surprised"): {
        "noun": ("a startled face", "a look of surprise"),
        "verb": ("looks surprised", "is surprised", "looks amazed"),
        "clause": ("the expression is surprised", "the mouth is open in surprise"),
    },
    ("expression", "unsmiling"): {
        "noun": ("a face without a smile",),
        "verb": ("is not smiling", "does not smile"),
        "clause": ("the mouth is not smiling", "there is no smile"),
    },
    ("glasses", "none"): {
        "noun": ("no glasses", "no eyewear"),
        "verb": ("wears no glasses", "does not wear glasses"),
        "clause": ("there are no glasses", "the face is free of glasses"),
    },
    ("glasses", "round"): {
        "noun": ("round glasses", "glasses with round frames"),
        "verb": ("wears round glasses", "has glasses with round frames"),
        "clause": ("the glasses are round", "there are round glasses on the nose"),
    },
    ("glasses", "square"): {
        "noun": ("square glasses", "glasses with square frames"),
        "verb": ("wears square glasses", "has glasses with square frames"),
        "clause": ("the glasses are square", "there are square glasses on the nose"),
    },
    ("glasses", "sunglasses"): {
        "noun": ("sunglasses", "dark shades"),
        "verb": ("wears sunglasses", "wears dark shades"),
        "clause": ("sunglasses hide the eyes", "there are sunglasses on the nose"),
    },
    ("glasses", "any"): {
        "noun": ("glasses", "a pair of glasses"),
        "verb": ("wears glasses", "wears a pair of glasses"),
        "clause": ("there are glasses on the nose",),
    },
    ("hat", "none"): {
        "noun": ("no hat", "no headwear"),
        "verb": ("wears no hat", "does not wear a hat"),
        "clause": ("there is no hat", "no hat is worn"),
    },
    ("hat", "kind"): {
        "noun": ("a {a}",),
        "verb": ("wears a {a}", "has a {a} on"),
        "clause": ("there is a {a} on the head", "a {a} is worn"),
    },
    ("hat", "kindcolor"): {
        "noun": ("a {b} {a}", "a {a} in {b}"),
        "verb": ("wears a {b} {a}", "has a {b} {a} on"),
        "clause": ("there is a {b} {a} on the head", "the {a} is {b}"),
    },
    ("beard", "none"): {
        "noun": ("no beard or moustache", "a shaven chin and lip"),
        "verb": ("is clean-shaven", "has no beard or moustache"),
        "clause": ("the face is clean-shaven", "there is no facial hair"),
    },
    ("beard", "moustache"): {
        "noun": ("a moustache", "a moustache above the mouth"),
        "verb": ("has a moustache", "wears a moustache"),
        "clause": ("there is a moustache", "a moustache covers the upper lip"),
    },
    ("beard", "goatee"): {
        "noun": ("a goatee", "a small beard on the chin"),
        "verb": ("has a goatee", "wears a goatee"),
        "clause": ("there is a goatee", "a small beard grows on the chin"),
    },
    ("beard", "full"): {
        "noun": ("a full beard", "a thick full beard"),
        "verb": ("has a full beard", "wears a full beard"),
        "clause": ("there is a full beard", "a full beard covers the jaw"),
    },
    ("beard", "bearded"): {
        "noun": ("a beard of some kind",),
        "verb": ("has a beard", "is bearded"),
        "clause": ("there is a beard",),
    },
    ("beard", "hairy"): {
        "noun": ("some facial hair",),
        "verb": ("has facial hair", "has some facial hair"),
        "clause": ("there is facial hair",),
    },
    ("beard", "unbearded"): {
        "noun": ("no beard",),
        "verb": ("has no beard", "does not have a beard"),
        "clause": ("there is no beard",),
    },
    ("earrings", "none"): {
        "noun": ("no earrings", "ears without rings"),
        "verb": ("wears no earrings", "has bare ears"),
        "clause": ("there are no earrings", "the ears are bare"),
    },
    ("earrings", "earrings"): {
        "noun": ("golden earrings", "rings in both ears"),
        "verb": ("wears earrings", "wears golden earrings"),
        "clause": ("there are earrings", "golden rings hang from the ears"),
    },
    ("background", "any"): {
        "noun": ("a {a} backdrop",),
        "verb": ("stands before a {a} backdrop", "is shown on {a}"),
        "clause": ("the backdrop is {a}", "everything behind is {a}"),
    },
    ("shirt", "color"): {
        "noun": ("a {a} shirt", "a {a} garment"),
        "verb": ("wears a {a} shirt", "has a {a} shirt on"),
        "clause": ("the shirt is {a}", "the clothing is {a}"),
    },
    ("shirt", "plain"): {
        "noun": ("a shirt with nothing on it", "an unprinted shirt"),
        "verb": ("wears a plain shirt", "has nothing printed on the shirt"),
        "clause": ("the shirt is plain", "no word is on the shirt"),
    },
    ("shirt", "word"): {
        "noun": ("the printed word {b}", "a shirt printed with {b}"),
        "verb": ("wears a shirt that reads {b}", "has {b} written on the shirt"),
        "clause": ("the shirt says {b}", "the printed word is {b}"),
    },
    ("shirt", "colorplain"): {
        "noun": ("an unprinted {a} shirt", "a {a} shirt with nothing on it"),
        "verb": ("wears a plain {a} shirt", "has an unprinted {a} shirt on"),
        "clause": ("the {a} shirt is plain", "no word is on the {a} shirt"),
    },
    ("shirt", "colorword"): {
        "noun": ("a {a} shirt printed with {b}", "the word {b} on {a} cloth"),
        "verb": ("wears a {a} shirt that reads {b}", "has {b} written on a {a} shirt"),
        "clause": ("the {a} shirt says {b}", "the shirt is {a} and says {b}"),
    },
}  # fmt: skip
