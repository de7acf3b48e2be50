"""Seeded faults: what people forget where there is only a CPU, each caught by a verb's run.

A fault is a mutant of ``tests/mutants``; the changed function's code is put into the function as
it is in this process, which costs no new one.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from types import CodeType
from typing import Any

import pytest

from tests.accelerator.tiny_runs import TinyRuns
from tests.mutants.harness import Mutant, mutated, source_file

#: Kind -> (verb's run, module, function, old, new).
FAULTS: dict[str, tuple[str, str, str, str, str]] = {
    "a model is not moved":
        ("score", "core.device", "Device.prepare",
         "self.place(module, self.dtype)", "module.to(self.dtype)"),
    "a picture is not moved":
        ("classify", "scorers.clip", "ClipScorer.embed_pixels",
         "pixels.to(self.device.torch)", "pixels"),
    "noise is not moved":
        ("generate by a GAN", "core.seeds", "Seeds.normal",
         "(torch.stack(rows) if rows else torch.empty(0, *shape)).to(device)",
         "torch.stack(rows) if rows else torch.empty(0, *shape)"),
    "a mask is not moved":
        ("edit within a mask", "tasks._edit_job", "EditJob._masks",
         "images[:, :1].to(self.ctx.device.torch)", "images[:, :1]"),
    "a batch is not moved":
        ("train", "training.prefetch", "to_device", "value.to(device, non_blocking=True)", "value"),
    "what is trained is not moved":
        ("train", "training.state", "begin", "model.to(device)", "model"),
    "weights on the default device":
        ("generate by a GAN", "core.prompts", "embed_prompts",
         "torch.zeros(len(parsed), most, device=table.device, dtype=table.dtype)",
         "torch.zeros(len(parsed), most, dtype=table.dtype)"),
    "tokens on the default device":
        ("caption by fusion", "guidance.caption_decoder", "CaptionDecoder.write",
         "torch.tensor([prompt] * len(targets), device=targets.device)",
         "torch.tensor([prompt] * len(targets))"),
    "a table of positions on the default device":
        ("generate by a prior", "generators.diffusion.text", "encode_text",
         "torch.arange(given.shape[1], device=device)", "torch.arange(given.shape[1])"),
    "a generator on the wrong device":
        ("generate by a GAN", "core.seeds", "Seeds.streams", "torch.Generator()",
         'torch.Generator("cuda")'),
    "numbers drawn on the device":
        ("generate by a GAN", "core.seeds", "Seeds.normal",
         "torch.randn(tuple(shape), generator=stream)",
         "torch.randn(tuple(shape), device=device)"),
    "features are left on the device":
        ("probe", "tasks.probe", "run", "vectors.cpu()", "vectors"),
    "numpy without the CPU":
        ("edit within a mask", "core.images", "to_images",
         'images.detach().to("cpu", torch.float32)', "images.detach().to(torch.float32)"),
    "all is done on the CPU":
        ("search", "core.device", "Device.torch", "torch.device(self.name)",
         'torch.device("cpu")'),
}  # fmt: skip


def code_of(module: CodeType, name: str) -> CodeType:
    """The code of a function in a module's, by its qualified name."""
    for part in name.split("."):
        (module,) = (
            each for each in module.co_consts if isinstance(each, CodeType) and each.co_name == part
        )
    return module


@contextlib.contextmanager
def seeded(fault: Mutant) -> Iterator[None]:
    """Within it the package has a fault."""
    file = source_file(fault.module)
    changed = compile(mutated(fault, file.read_text("utf-8")), str(file), "exec")
    function: Any = importlib.import_module(fault.module)
    *owners, last = fault.where.split(".")
    for owner in owners:
        function = getattr(function, owner)
    function = vars(function)[last]
    function = getattr(function, "fget", None) or getattr(function, "__wrapped__", function)
    whole = function.__code__
    function.__code__ = code_of(changed, fault.where)
    try:
        yield
    finally:
        function.__code__ = whole


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_is_caught(kind: str, tiny: TinyRuns) -> None:
    name, module, where, old, new = FAULTS[kind]
    assert tiny.faults(name, seeded(Mutant(f"guided.{module}", where, old, new, ())))
