"""How fast the text-to-image GAN draws and trains, beside the common way: ratios from one run.

scripts/bench text_gan [--size 128] [--batch 16] [--repeats 3] [--scaling] [--json]
    [--device cpu|cuda|mps]

Both ways have about the same number of parameters and random weights, one thread.  A training step
of ours is 15 plain ones and one with the gradient penalty, weighted; data loading and the CLIP term
are in neither.  --scaling adds tables over batch and size.  Times are CPU time of this process; on
a GPU, time on the wall.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import torch
from torch import Tensor, nn

from guided.core.device import Device, Precision
from guided.nets.text_gan import TextGanShape, TextGenerator
from guided.training.text_gan_modules import GanModules, GanPhase, critic_loss
from guided.worlds.portraits.benchmarks._machine import (
    about,
    arguments,
    headline,
    on_cpu,
    timed,
    unit,
)
from guided.worlds.portraits.tools import tool_parser
from guided.worlds.portraits.training.text_gan import TextGanSettings
from tests.references import text_gan as reference

TEXT, LATENT, LAZY = 256, 128, 16
WIDTHS = (136, 136, 104, 64, 32, 16)
CRITIC = (16, 32, 64, 96, 144, 160)


def count(module: nn.Module) -> int:
    """Parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def ours(size: int, device: Device) -> GanModules:
    """Our two players at a size."""
    s = TextGanSettings()
    levels = (size // 8).bit_length()
    channels = s.channels[:levels] if levels <= 5 else WIDTHS[:levels]
    critic = (s.critic if levels == 5 else CRITIC)[-levels:]
    torch.manual_seed(0)
    shape = TextGanShape(size, TEXT, LATENT, channels)
    return GanModules(shape, critic, s.features, s.group, 0).to(device.torch)


def theirs(
    size: int, like: GanModules, device: Device
) -> tuple[reference.Generator, reference.Discriminator]:
    """The common way with the widths that come nearest in parameters."""
    torch.manual_seed(0)

    def nearest(make: Callable[[int], Any], wanted: int) -> Any:
        made = [make(unit) for unit in range(3, 24)]
        return min(made, key=lambda net: abs(count(net) - wanted)).to(device.torch)

    generator = nearest(lambda u: reference.Generator(size, TEXT, u), count(like.generator))
    critic = nearest(lambda u: reference.Discriminator(size, TEXT, u), count(like.critic))
    return generator, critic


def inputs(size: int, batch: int, device: Device) -> tuple[Tensor, ...]:
    """Real pictures, z, texts, wrong texts and the augmentation's luck."""
    stream = torch.Generator().manual_seed(1)
    real = torch.rand(batch, 3, size, size, generator=stream) * 2 - 1
    text, wrong = torch.nn.functional.normalize(
        torch.randn(2, batch, TEXT, generator=stream), dim=2
    )
    z = torch.randn(batch, LATENT, generator=stream)
    uniform = torch.rand(2 * batch, 8, generator=stream)
    return tuple(device.move(each) for each in (real, z, text, wrong, uniform))


def our_step(modules: GanModules, given: tuple[Tensor, ...], penalty: float) -> Callable[[], None]:
    """One step of both players as the training loop does it."""
    real, z, text, wrong, uniform = given
    real = real.contiguous(memory_format=torch.channels_last)
    modules.to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(modules.parameters(), 1e-4, betas=(0.0, 0.99), fused=True)
    mismatched = torch.ones(len(z), device=z.device)

    def step() -> None:
        with torch.autocast(z.device.type, torch.bfloat16):
            seen = modules(GanPhase(True, 1.0, penalty), real, z, text, wrong, uniform)
            loss = critic_loss(seen, mismatched)
            loss = loss if seen.penalty is None else loss + seen.penalty
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    return step


@torch.no_grad()
def sampling(net: nn.Module, z: Tensor, text: Tensor, device: Device, repeats: int) -> float:
    """Seconds a picture."""
    with torch.inference_mode():
        return timed(lambda: net(z, text), device, repeats)[0] / len(z)


def settled(modules: GanModules, device: Device) -> TextGenerator:
    """The generator as it is used, in a device's precision."""
    twin = TextGenerator(modules.generator.shape)
    twin.load_state_dict(modules.generator.state_dict())
    return device.prepare(twin).to(memory_format=torch.channels_last)


def compare(size: int, batch: int, device: Device, repeats: int) -> dict[str, float]:
    """Seconds a picture of both ways, and their ratios."""
    modules = ours(size, device)
    generator, critic = theirs(size, modules, device)
    given = inputs(size, batch, device)
    real, z, text = given[:3]
    found: dict[str, float] = {
        "parameters_generator": count(modules.generator), "parameters_theirs": count(generator),
        "parameters_critic": count(modules.critic), "parameters_their_critic": count(critic),
    }  # fmt: skip
    short = z[:, :100]
    found["their_sample"] = sampling(generator.eval(), short, text, device, repeats)
    for precision in get_args(Precision):
        place = replace(device, precision=precision)
        net, noise, words = settled(modules, place), place.move(z), place.move(text)
        found[f"sample_{precision}"] = sampling(net, noise, words, device, repeats)
    their_step = reference.step_of(generator.train(), critic, real, short, text)
    found["their_step"] = timed(their_step, device, repeats)[0] / batch
    plain = timed(our_step(modules, given, 0.0), device, repeats)[0] / batch
    lazy = timed(our_step(modules, given, 16.0), device, repeats)[0] / batch
    found["step"] = ((LAZY - 1) * plain + lazy) / LAZY
    found["step_with_penalty"] = lazy
    found["sample_ratio_fp32"] = found["their_sample"] / found["sample_fp32"]
    found["sample_ratio"] = found["their_sample"] / found["sample_bf16"]
    found["step_ratio"] = found["their_step"] / found["step"]
    return found


def scaling(device: Device, repeats: int) -> list[dict[str, float]]:
    """Milliseconds a picture over batch and size, both ways."""
    rows, low = [], replace(device, precision="bf16")
    for size, batch in ((128, 1), (128, 4), (128, 16), (64, 16), (256, 4)):
        modules = ours(size, device)
        generator, _ = theirs(size, modules, device)
        z, text = inputs(size, batch, device)[1:3]
        mine = sampling(settled(modules, low), low.move(z), low.move(text), device, repeats)
        other = sampling(generator.eval(), z[:, :100], text, device, repeats)
        rows.append({"size": size, "batch": batch, "ours_ms": 1e3 * mine, "theirs_ms": 1e3 * other})
    return rows


def main() -> None:
    """Print the tables; with --json one object."""
    parser = tool_parser("bench text_gan", __doc__)
    parser.add_argument("--size", type=int, default=128, choices=(64, 128, 256))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scaling", action="store_true")
    parser.add_argument("--json", action="store_true")
    given, device = arguments(parser)
    torch.set_num_threads(1)
    found: dict[str, Any] = dict(compare(given.size, given.batch, device, given.repeats))
    if given.scaling:
        found["scaling"] = scaling(device, given.repeats)
    if given.json:
        print(json.dumps({**about(device), "text_gan": found}))
        return
    print(headline(device))
    times = unit(device, "ms") + " a picture" + (", one thread" if on_cpu(device) else "")
    print(f"text_gan {given.size} px, batch {given.batch}, {times}")
    for name, value in found.items():
        if name == "scaling":
            for row in value:
                print("  ", "  ".join(f"{k} {v:g}" for k, v in row.items()))
        elif name.startswith("parameters"):
            print(f"  {name:26s} {value:,}")
        else:
            shown = f"{value:.2f} x" if "ratio" in name else f"{1e3 * value:.2f} ms"
            print(f"  {name:26s} {shown}")


if __name__ == "__main__":
    main()
