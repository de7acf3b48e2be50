"""What a caption costs: ZeroCap's way against ours, on random models, one thread, one run.

scripts/bench caption [--size small|full] [--part N] [--device cpu|cuda|mps]

small   both ways write a whole caption of 5 tokens with 5 beams; the ids must be equal.
full    ViT-B/32's text tower and GPT-2 medium.  ZeroCap's way is timed on the first inner
        iteration of steps 0 and 1 (all 512 candidates, or every N-th counted N-fold) and
        extrapolated: caption = 5 * (iteration of step 0 + 14 * iteration of step 1) + readings.
        Contexts grow later, so this favours it.  Our caption is written to its end.

Seconds are CPU seconds of this process; on a GPU, seconds on the wall.  Weights are random, so no
time depends on their values; the language model's last norm is widened until its choices are about
as peaked as a trained one's.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from open_clip.tokenizer import SimpleTokenizer
from transformers import GPT2Config, GPT2LMHeadModel

from guided.core.device import Device
from guided.guidance.decode import Proposal, Rows, Search, decode
from guided.guidance.logits_processors import LogitScale
from guided.guidance.zerocap import CaptionModels, ZeroCap
from guided.language.gpt2 import Gpt2
from guided.language.vocabulary import tidy
from guided.losses.fluency import Fluency
from guided.losses.word_clip import WordClip
from guided.scorers.prefix_text import PrefixTextScorer
from guided.worlds.portraits.benchmarks._machine import arguments, headline, once, unit
from guided.worlds.portraits.tools import tool_parser
from tests.references.caption import Reference

BEAMS, ITERATIONS = 5, 5
SIZES: dict[str, dict[str, Any]] = {
    "small": {"text": (64, 2, 2), "gpt2": (64, 2, 2), "vocabulary": 6000, "tokens": 5},
    "full": {"text": (512, 8, 12), "gpt2": (1024, 16, 24), "vocabulary": 50257, "tokens": 15},
}


class Pieces:
    """A vocabulary for random language models: the words of CLIP's own, a blank before each.

    Three quarters are words that begin with a blank and a quarter are pieces of words, about as
    in GPT-2's vocabulary.  The last id begins texts.
    """

    def __init__(self, tokenizer: SimpleTokenizer, size: int) -> None:
        known = [text for text in tokenizer.encoder if text.replace("</w>", "").isascii()]
        words = [f" {t[:-4]}" for t in known if t.endswith("</w>") and t[:-4].isalpha()]
        parts = [t for t in known if not t.endswith("</w>") and t.isalpha()]
        while len(words) + len(parts) < size:
            words += [f"{a}{b[1:]}" for a, b in pairwise(words)]
        share = min(len(parts), size // 4)
        self.texts = [*words[: size - 2 - share], *parts[:share], ".", "<|endoftext|>"]
        self.number = {text: token for token, text in enumerate(self.texts)}
        self.non_word_tokens: tuple[int, ...] = ()

    def encode(self, text: str) -> list[int]:
        """Ids of words that are in the vocabulary."""
        first, *rest = text.split()
        return [self.number[f" {word}"] for word in (first, *rest)]

    def decode(self, tokens: list[int]) -> str:
        """The words one after the other."""
        return tidy("".join(self.texts[token] for token in tokens))

    def piece(self, token: int) -> str:
        """The text of one token."""
        return tidy(self.texts[token])


def models(size: str, device: Device) -> tuple[Gpt2, Any, SimpleTokenizer]:
    """A random language model and a random CLIP text tower with its tokenizer."""
    chosen, tokenizer = SIZES[size], SimpleTokenizer()
    width, heads, layers = chosen["text"]
    torch.manual_seed(0)
    clip = open_clip.model.CustomTextCLIP(
        embed_dim=width,
        vision_cfg={"image_size": 32, "patch_size": 32, "width": 64, "layers": 1, "head_width": 64},
        text_cfg={"context_length": 77, "vocab_size": 49408, "width": width, "heads": heads,
                  "layers": layers},
        quick_gelu=True,
    )  # fmt: skip
    wide, parts, deep = chosen["gpt2"]
    vocabulary = chosen["vocabulary"]
    gpt2 = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocabulary, n_positions=64, n_embd=wide, n_head=parts, n_layer=deep,
            bos_token_id=vocabulary - 1, eos_token_id=vocabulary - 1,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        )
    )  # fmt: skip
    with torch.no_grad():
        gpt2.transformer.ln_f.weight.mul_(4.0 * (1024 / wide) ** 0.5)
        for name, value in [*clip.named_parameters(), *gpt2.named_parameters()]:
            if value.ndim == 1:
                value.add_(0.05 * torch.randn(value.shape))
            assert value.isfinite().all(), name
    words: Any = Pieces(tokenizer, vocabulary)
    return Gpt2(gpt2, words, device, f"random {size}"), device.prepare(clip), tokenizer


def write(prompt: torch.Tensor, guide: Any, end: int, count: int) -> list[list[int]]:
    """The ids of all beams of a caption of ``count`` tokens, in beam order."""
    search = Search(BEAMS, count, end, pad=0, keep_finished=True)
    *_, last = decode(prompt, guide, search)
    assert last.draft is not None
    return last.draft.tokens[0].tolist()


def ours(
    language: Gpt2, scorer: PrefixTextScorer, target: torch.Tensor, factors: LogitScale
) -> Any:
    """Our way in its compatible mode."""
    models = CaptionModels(language, scorer, target[None], language.words.piece)
    return ZeroCap(models, WordClip(512) + 0.2 * Fluency(), factors, ITERATIONS, whole="sample")


class Timed:
    """A guide with seconds, those of the text tower apart."""

    def __init__(self, guide: Any, scorer: PrefixTextScorer) -> None:
        self.guide, self.whole, self.clip = guide, 0.0, 0.0
        self.device, inner = scorer.device, scorer.embed_endings

        def embed(*given: Any) -> Any:
            seconds, found = once(lambda: inner(*given), self.device)
            self.clip += seconds
            return found

        scorer.embed_endings = embed  # type: ignore[method-assign, assignment]

    def propose(self, rows: Rows) -> Proposal:
        """The guide's proposal."""
        seconds, proposal = once(lambda: self.guide.propose(rows), self.device)
        self.whole += seconds
        assert isinstance(proposal, Proposal)
        return proposal


def first_iterations(reference: Reference, prompt: list[int], step1: list[list[int]]) -> list[Any]:
    """CLIP and language seconds of one inner iteration at step 0 and at step 1, with readings."""
    measured, where = [], reference.target.device
    for index, tokens in enumerate(([prompt], step1)):
        reference.iterations = 1
        reference.seconds = {"clip": 0.0, "language": 0.0}
        zeros = torch.zeros(len(tokens), dtype=torch.long, device=where)
        given = torch.tensor(tokens, device=where)
        reference.propose(Rows(given, zeros, zeros, index, torch.ones_like(zeros).bool()))
        measured.append(SimpleNamespace(**reference.seconds))
    return measured


def shares(language: Gpt2, clip: Any, tokenizer: Any, said: str, part: int) -> None:
    """What each exact short cut of the text tower gives for 512 candidates of one text."""
    texts = [said + language.words.piece(token) for token in range(0, 512 * 7, 7)]
    device = language.device

    def whole() -> None:
        for first in range(0, 512 // part, 64):
            clip.encode_text(tokenizer(texts[first : first + 64]).to(device.torch))

    trunk = clip.text

    def trimmed() -> None:
        ids = tokenizer(texts).to(device.torch)
        length = int(ids.argmax(-1).max()) + 1
        for some in ids[:, :length].split(64):
            x = trunk.token_embedding(some) + trunk.positional_embedding[:length]
            trunk.transformer(x, attn_mask=trunk.attn_mask[:length, :length])

    scorer = PrefixTextScorer(clip, tokenizer, device)
    endings = [language.words.piece(token) for token in range(0, 512 * 7, 7)]
    scorer.embed_endings([said], [endings[:1]])
    shared = partial(scorer.embed_endings, [said], [endings])
    with torch.no_grad():
        costs = [once(work, device)[0] for work in (whole, trimmed, shared)]
    costs[0] *= part
    print(
        f"512 candidates of one text: whole context {costs[0]:.2f} s, to the end token "
        f"{costs[1]:.2f} s ({costs[0] / costs[1]:.1f}x), shared prefix {costs[2]:.2f} s "
        f"({costs[1] / costs[2]:.1f}x more, {costs[0] / costs[2]:.1f}x in all)"
    )


def main() -> None:
    """Print both ways' seconds and their ratio."""
    parser = tool_parser("bench caption", __doc__)
    parser.add_argument("--size", choices=sorted(SIZES), default="small")
    parser.add_argument("--part", type=int, default=1, help="time every N-th candidate only")
    given, device = arguments(parser)
    torch.set_num_threads(1)
    print(headline(device))
    language, clip, tokenizer = models(given.size, device)
    count = SIZES[given.size]["tokens"]
    prompt = [language.begin, *language.encode("image of a")]
    end = language.words.number["."]  # type: ignore[attr-defined]
    target = F.normalize(device.move(torch.randn(SIZES[given.size]["text"][0])), dim=0)
    factors = LogitScale(end, end_factor=1.01)
    scorer = PrefixTextScorer(clip, tokenizer, device)
    timed = Timed(ours(language, scorer, target, factors), scorer)
    start = torch.tensor([prompt], device=device.torch)
    found = write(start, timed, end, count)
    counts = scorer.counts
    print(f"{given.size}: {BEAMS} beams, {count} tokens, {ITERATIONS} iterations, 1 thread, fp32")
    print(
        f"ours: {timed.whole:.2f} {unit(device)} (text tower {timed.clip:.2f}, the rest "
        f"{timed.whole - timed.clip:.2f}); {512 * ITERATIONS * (1 + BEAMS * (count - 1)):,} texts "
        f"asked, {counts.distinct:,} distinct, {counts.positions:,} positions computed"
    )
    reference = Reference(
        language, clip, tokenizer, language.words.piece, target, factors, part=given.part
    )
    if given.size == "small" and given.part == 1:
        same = write(start, reference, end, count)
        assert same == found, "the two ways wrote different ids"
        theirs = sum(reference.seconds.values())
        print(f"ZeroCap's way: {theirs:.2f} {unit(device)}, measured to the end; ids equal")
    else:
        theirs = extrapolated(reference, prompt, found, scorer, count)
    print(f"ratio: {theirs / timed.whole:.1f}x")
    shares(language, clip, tokenizer, language.decode(prompt[1:]) + " big house", given.part)


def extrapolated(
    reference: Reference,
    prompt: list[int],
    found: list[list[int]],
    scorer: PrefixTextScorer,
    count: int,
) -> float:
    """Seconds of a caption in ZeroCap's way, from one inner iteration of steps 0 and 1."""
    step1 = [[*prompt, row[len(prompt)]] for row in found]
    zero, one = first_iterations(reference, prompt, step1)
    tokens, cosines = reference.rounds[0]
    asked = tokens[0, :: reference.part].tolist()
    said = reference.language.decode(prompt[1:])
    (mine,) = scorer.embed_endings([said], [[reference.piece(token) for token in asked]])
    gap = float((mine @ reference.target - cosines[0, :: reference.part]).abs().max())
    assert gap < 1e-5, f"cosines differ by {gap}"
    clip = ITERATIONS * (zero.clip + (count - 1) * one.clip)
    words = zero.language + (count - 1) * one.language
    print(
        f"ZeroCap's way: one inner iteration {zero.clip:.1f} s of text tower at step 0 and "
        f"{one.clip:.1f} s at step 1 (1 of {reference.part} candidates timed); "
        f"extrapolated {clip:,.0f} s of text tower + at least {words:,.0f} s of language model "
        f"(one iteration a step); cosines equal to {gap:.1e}"
    )
    return float(clip + words)


if __name__ == "__main__":
    main()
