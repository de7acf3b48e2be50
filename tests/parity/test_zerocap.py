"""The captioner in its compatible mode against traces made by the reference implementation.

Remade with other seeds: ``pytest -m parity tests/parity/test_zerocap.py --parity DIR``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import load_file
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from guided.core.language_model import TextCandidate
from guided.core.objective import BoundLoss, Loss, LossContext
from guided.guidance.decode import Beams, Proposal, Rows, Search, decode
from guided.guidance.logits_processors import LogitScale
from guided.guidance.zerocap import CaptionModels, ZeroCap
from guided.guidance.zerocap_target import mixed
from guided.language.gpt2 import Gpt2
from guided.language.vocabulary import Vocabulary
from guided.losses.fluency import Fluency
from guided.losses.word_clip import WordClip
from guided.scorers.prefix_text import PrefixTextScorer

pytestmark = pytest.mark.parity

CASES = ("caption", "arithmetic", "ocr", "stop")
PROBABILITY = 2e-5
COSINE = 1e-5


@dataclass(frozen=True)
class Data:
    """The models of the reference run and what it recorded."""

    clip: Any
    scorer: PrefixTextScorer
    language: Gpt2
    trace: dict[str, Tensor]
    summary: dict[str, Any]
    forbidden: tuple[int, ...]


@pytest.fixture(scope="module")
def data(parity_dir: Path) -> Iterator[Data]:
    folder = parity_dir / "zerocap"
    if not (folder / "trace.safetensors").is_file():
        pytest.skip(f"no zerocap trace in {parity_dir}")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    models = json.loads((folder / "models.json").read_text())
    clip = open_clip.model.CLIP(**models["clip"])
    clip.load_state_dict(load_file(folder / "clip.safetensors"))
    clip.eval().requires_grad_(False)
    gpt2 = GPT2LMHeadModel(GPT2Config(**models["gpt2"]))
    gpt2.load_state_dict(load_file(folder / "gpt2.safetensors"), strict=False)
    gpt2.tie_weights()
    tokenizer = SimpleTokenizer(bpe_path=str(folder / "clip_bpe.txt.gz"), context_length=77)
    yield Data(
        clip=clip,
        scorer=PrefixTextScorer(clip, tokenizer),
        language=Gpt2(
            gpt2,
            Vocabulary.from_files(folder / "gpt2_vocab.json", folder / "gpt2_merges.txt"),
        ),
        trace=load_file(folder / "trace.safetensors"),
        summary=json.loads((folder / "summary.json").read_text()),
        forbidden=tuple(np.load(folder / "forbidden_tokens.npy").tolist()),
    )
    torch.set_num_threads(threads)


@dataclass
class Seen:
    """What the guide did at one step."""

    rows: Rows
    proposal: Proposal
    rounds: list[tuple[Tensor, Tensor, Tensor]]
    shift: dict[str, Tensor]


@dataclass(frozen=True)
class Watched(WordClip):
    """The loss of the guide, keeping the candidates, cosines and losses of every round."""

    rounds: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)

    kind = "word_clip"  # type: ignore[assignment]

    def bind(self, scene: LossContext) -> BoundLoss:
        loss = super().bind(scene)
        continuations = scene.models["continuations"]

        def watched(draft: TextCandidate) -> Tensor:
            value = loss(draft)
            tokens = draft.log_probabilities.detach().topk(512).indices
            self.rounds.append((tokens, continuations.cosines(tokens), value.detach()))
            return value

        return watched


def run(data: Data, case: str, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Seen], Beams]:
    """All steps of a case with its own settings, and the beams they end with."""
    given = data.summary[case]
    settings = given["hyper"]
    language = data.language
    prompt = [language.begin, *language.encode(given["cond_text"])]
    assert prompt == given["prompt_ids"]
    (end,) = language.encode(settings["end_token"])
    watched: Loss = Watched(512, settings["clip_loss_temperature"])
    assert isinstance(watched, Watched)
    guide = ZeroCap(
        CaptionModels(language, data.scorer, target(data, case), language.words.piece),
        settings["clip_scale"] * watched + settings["ce_scale"] * Fluency(),
        LogitScale(
            end,
            data.forbidden,
            end_factor=settings["end_factor"],
            repetition=settings["repetition_penalty"],
            forbidden_factor=settings["forbidden_factor"],
        ),
        iterations=settings["num_iterations"],
        rate=settings["stepsize"],
        power=settings["grad_norm_factor"],
        fusion=settings["fusion_factor"],
        whole="sample",
    )
    seen: list[Seen] = []
    shifts: list[dict[str, Tensor]] = []
    from guided.guidance import zerocap

    def spied(leaves: Any, draw: Any, *rest: Any, **named: Any) -> Any:
        def kept(shift: dict[str, Tensor], progress: float) -> TextCandidate:
            shifts.append(shift)
            return draw(shift, progress)

        return zerocap_optimise(leaves, kept, *rest, **named)

    zerocap_optimise = zerocap.optimise
    monkeypatch.setattr(zerocap, "optimise", spied)

    class Spy:
        def propose(self, rows: Rows) -> Proposal:
            watched.rounds.clear()
            proposal = guide.propose(rows)
            seen.append(Seen(rows, proposal, list(watched.rounds), shifts[-1]))
            return proposal

    search = Search(
        beams=settings["beam_size"],
        steps=settings["target_seq_length"],
        end=end,
        pad=0,
        keep_finished=True,
    )
    *_, last = decode(torch.tensor([prompt]), Spy(), search)
    assert last.draft is not None
    return seen, last.draft


def target(data: Data, case: str) -> Tensor:
    """The target of a case, mixed from the recorded features."""
    weights = data.summary[case]["weights"]
    features = data.trace["image_features_unnormalised"][: len(weights)]
    return mixed(features, weights).unsqueeze(0)


@pytest.mark.parametrize("case", CASES)
def test_targets(data: Data, case: str) -> None:
    found = data.clip.encode_image(data.trace["images"])
    assert torch.allclose(found, data.trace["image_features_unnormalised"], atol=1e-5)
    assert torch.allclose(target(data, case), data.trace[f"{case}.target_feature"], atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_case(data: Data, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, beams = run(data, case, monkeypatch)
    trace = data.trace
    assert len(seen) == data.summary[case]["steps"]
    for index, step in enumerate(seen):
        name = f"{case}.step{index:02}"
        assert torch.equal(step.rows.tokens, trace[f"{name}.context"].long()), name
        found = step.proposal.log_probabilities.exp()
        assert (found - trace[f"{name}.probs"]).abs().max() <= PROBABILITY, name
        for number, (tokens, cosines, losses) in enumerate(step.rounds):
            if f"{name}.iter{number}.topk" in trace:
                same_round(trace, f"{name}.iter{number}", tokens, cosines, losses)
        same_shift(trace, name, step.shift)
    assert torch.equal(beams.tokens[0], trace[f"{case}.final_context"].long())
    same_ending(data, case, beams)


def same_round(
    trace: dict[str, Tensor], name: str, tokens: Tensor, cosines: Tensor, losses: Tensor
) -> None:
    """Compare candidates as sets and cosines by token: near ties may change places."""
    listed = trace[f"{name}.topk"].long()
    unknown = torch.full((len(listed), 1 + int(max(listed.max(), tokens.max()))), torch.nan)
    found = unknown.scatter(1, tokens, cosines)
    given = unknown.scatter(1, listed, trace[f"{name}.clip_sim"])
    both = ~(found.isnan() | given.isnan())
    assert both.sum() >= listed.numel() - 2 * len(listed), name
    assert (found - given)[both].abs().max() <= COSINE, name
    assert torch.allclose(losses, trace[f"{name}.clip_losses"], atol=1e-4), name


def same_shift(trace: dict[str, Tensor], name: str, shift: dict[str, Tensor]) -> None:
    """Compare the accumulated shift of keys and values, layer by layer."""
    if f"{name}.delta_norm" not in trace:
        return
    for layer, norms in enumerate(trace[f"{name}.delta_norm"]):
        for kind, norm in zip(("key", "value"), norms, strict=True):
            found = shift[f"{kind}_{layer:02}"].flatten(1).norm(dim=1)
            assert torch.allclose(found, norm, rtol=1e-4, atol=1e-5), name
    if f"{name}.delta" in trace:
        for layer, pair in enumerate(trace[f"{name}.delta"]):
            for kind, whole in zip(("key", "value"), pair, strict=True):
                found = shift[f"{kind}_{layer:02}"]
                assert torch.allclose(found, whole, atol=2e-5), name


def same_ending(data: Data, case: str, beams: Beams) -> None:
    """Compare the texts in the order of their scores, and their cosines without the prompt."""
    ranked = beams.ranked()
    count = ranked.stopped.shape[1]
    texts = [data.language.decode(ranked.written(0, place)) for place in range(count)]
    given = data.summary[case]
    assert texts == given["texts_in_score_order"]
    cosines = data.scorer.embed_texts(texts) @ target(data, case)[0]
    assert (cosines - data.trace[f"{case}.rerank_clip"]).abs().max() <= COSINE
    assert int(cosines.argmax()) == given["best_clip_index"]
    best = given["cond_text"] + texts[given["best_clip_index"]]
    assert best == given["best"]


def test_continuations_have_the_reference_ids(data: Data) -> None:
    """The ids of the first candidates are those the reference gave to CLIP."""
    name = "caption.step00"
    listed = data.trace[f"{name}.iter0.topk"][0].tolist()
    prefix = data.summary["caption"]["cond_text"]
    endings = [data.language.words.piece(token) for token in listed]
    (rows,) = data.scorer.texts.rows([prefix], [endings])
    for ids, given in zip(rows, data.trace[f"{name}.cand_clip_ids"].tolist(), strict=True):
        assert list(ids) == [token for token in given if token][: len(ids)]
        assert sum(token > 0 for token in given) == len(ids)


@pytest.mark.parametrize(
    ("case", "change"),
    [
        ("arithmetic", {"grad_norm_factor": 0.94, "target_seq_length": 2}),
        ("stop", {"end_factor": 1.0, "target_seq_length": 2}),
    ],
)
def test_wrong_settings_are_seen(
    data: Data, case: str, change: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another setting moves probabilities far beyond the tolerance: agreement means something."""
    hyper = data.summary[case]["hyper"]
    monkeypatch.setitem(data.summary, case, {**data.summary[case], "hyper": {**hyper, **change}})
    seen, _ = run(data, case, monkeypatch)
    gaps = [
        (step.proposal.log_probabilities.exp() - data.trace[f"{case}.step{index:02}.probs"])
        .abs().max().item()
        for index, step in enumerate(seen[:2])
    ]  # fmt: skip
    assert max(gaps) > 4 * PROBABILITY
