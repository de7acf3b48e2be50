"""A tiny random CLIP in open_clip's own folder layout, with its own byte-level tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from guided.scorers.clip import ClipScorer, load_clip

WORDS = "a photo of the red green blue yellow square circle cat dog person with hat on grass sky"
START, END, PAD = "<start>", "<end>", "<pad>"


def write_tokenizer(folder: Path, context: int = 24) -> tuple[int, int, int]:
    """Save a byte-level BPE as a fast tokenizer; its vocabulary size, end id and pad id."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([WORDS] * 8, trainer)
    ids = {name: tokenizer.token_to_id(name) for name in (PAD, START, END)}
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, ids[START]), (END, ids[END])]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=START,
        eos_token=END,
        pad_token=PAD,
        model_max_length=context,
    ).save_pretrained(folder)
    return tokenizer.get_vocab_size(), ids[END], ids[PAD]


def write_clip(folder: Path, seed: int = 0, **text: object) -> Path:
    """Write a random CLIP of about 60,000 parameters into a folder; returns the folder."""
    import open_clip
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary, end, pad = write_tokenizer(folder)
    text_cfg = {
        "context_length": 24, "vocab_size": vocabulary, "width": 32, "heads": 2, "layers": 2,
        "hf_tokenizer_name": "own", "pool_type": "eos", "eos_id": end, "pad_id": pad,
    }  # fmt: skip
    config = {
        "model_cfg": {
            "embed_dim": 24,
            "vision_cfg": {
                "image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8,
            },
            "text_cfg": {**text_cfg, **text},
        },
        "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.3, 0.25, 0.2]},
    }  # fmt: skip
    (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    torch.random.set_rng_state(state)
    save_file(
        {name: value.contiguous() for name, value in model.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    return folder


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle on disk."""
    return write_clip(tmp_path_factory.mktemp("bundle") / "clip")


@pytest.fixture(scope="session")
def scorer(bundle: Path) -> ClipScorer:
    """The scorer of that bundle."""
    return load_clip(f"local-dir:{bundle}")
