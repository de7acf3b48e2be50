"""The simulated device itself: it sees what CUDA would see, and its numbers are the CPU's."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.accelerator.simulated import Accelerator, accelerator


@pytest.fixture
def device() -> Iterator[Accelerator]:
    with accelerator() as mode:
        yield mode


class Small(nn.Module):
    """A convolution, attention, a buffer and two names of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Conv2d(3, 8, 3)
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 8)
        self.second.weight = self.first.weight
        self.norm = nn.GroupNorm(2, 8)
        self.register_buffer("shift", torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        rows = self.norm(self.maps(x)).flatten(2).transpose(1, 2)[:, None]
        rows = F.scaled_dot_product_attention(self.first(rows), self.second(rows), rows)
        return (rows + self.shift).square().mean((1, 2, 3))


def small() -> Small:
    torch.manual_seed(1)
    return Small()


def pixels(where: str) -> Tensor:
    stream = torch.Generator().manual_seed(2)
    return torch.randn(2, 3, 8, 8, generator=stream).to(where)


def learned(where: str) -> list[Tensor]:
    """Values, gradients and second gradients of a step, all of them on the CPU."""
    net, x = small().to(where), pixels(where).requires_grad_()
    optimiser = torch.optim.AdamW(net.parameters(), lr=0.1, fused=True)
    values = net(x)
    (slope,) = torch.autograd.grad(values.sum(), x, create_graph=True)
    (values.sum() + slope.square().sum()).backward()
    gradients = [each.grad for each in net.parameters()]
    assert all(each is not None and each.device == x.device for each in [slope, *gradients])
    optimiser.step()
    return [t.detach().cpu() for t in [values, slope, x.grad, *gradients, *net.parameters()]]


def test_convolution_attention_backward_and_a_step_equal_the_cpu_s(device: Accelerator) -> None:
    here, there = learned("cpu"), learned("cuda")
    assert device.products["cuda"] == device.products["cpu"] > 0
    assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))


def test_what_is_derived_from_a_tensor_lies_where_it_lies(device: Accelerator) -> None:
    x = pixels("cuda")
    assert x.device == torch.device("cuda:0")
    assert x.is_cuda
    assert not x.is_cpu
    derived = [
        x[0],
        x.mT,
        x + 1,
        x.view(-1),
        torch.cat([x, x]),
        torch.zeros_like(x),
        x.new_ones(2),
        x.detach(),
        nn.Parameter(x),
        copy.deepcopy(x),
        x.topk(1)[0],
        torch.as_tensor(x),
        x.data,
        x.to(torch.float64),
        x.unbind()[1],
        x.softmax(1),
    ]
    assert {each.device.type for each in derived} == {"cuda"}
    assert x.to("cuda") is x
    assert x.cpu().device == torch.zeros_like(x, device="cpu").device == torch.device("cpu")
    net = small().to("cuda")
    assert {each.device.type for each in net.state_dict().values()} == {"cuda"}
    assert net.first.weight is net.second.weight
    assert next(copy.deepcopy(net).parameters()).device.type == "cuda"


def test_there_is_no_such_device_before_and_after() -> None:
    with accelerator():
        x = torch.ones(2, device="cuda")
        assert torch.cuda.is_available()
    assert not torch.cuda.is_available()
    assert x.device.type == "cpu"


REFUSED: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "a sum": lambda far, near: far + near,
    "a sum the other way": lambda far, near: near * far,
    "a sum in place": lambda far, near: near.add_(far),
    "a scalar of the device in a tensor of the CPU": lambda far, near: near + far.sum(),
    "joined": lambda far, near: torch.cat([far, near]),
    "stacked numbers": lambda far, near: torch.stack([far.sum(), near.sum()]),
    "a product": lambda far, near: far @ near.T,
    "a linear layer": lambda far, near: F.linear(far, near),
    "a layer left behind": lambda far, near: nn.Linear(4, 4)(far),
    "attention": lambda far, near: F.scaled_dot_product_attention(far[None], near[None], far[None]),
    "a convolution": lambda far, near: F.conv2d(far[None, None], near[None, None]),
    "a choice": lambda far, near: torch.where(far > 0, far, near),
    "a mask": lambda far, near: far.masked_fill(near > 0, 0.0),
    "an index of the device on the CPU": lambda far, near: near[torch.arange(2, device="cuda")],
    "values written by an index": lambda far, near: far.__setitem__(torch.arange(4), near),
    "rows gathered": lambda far, near: far.gather(1, torch.zeros(4, 1, dtype=torch.long)),
    "an embedding": lambda far, near: F.embedding(torch.zeros(3, dtype=torch.long), far),
    "a comparison": torch.equal,
    "a gradient of the other device": lambda far, near: setattr(far, "grad", near),
    "numpy": lambda far, near: far.numpy(),
    "an array": lambda far, near: np.asarray(far),
    "a generator of the CPU": lambda far, near: torch.rand(
        2, device="cuda", generator=stream("cpu")),
    "a generator of the device": lambda far, near: torch.randn(2, generator=stream("cuda")),
    "drawn in place": lambda far, near: far.normal_(generator=stream("cpu")),
    "a draw by chance": lambda far, near: torch.multinomial(far.abs(), 1, generator=stream("cpu")),
    "a second device": lambda far, near: near.to("cuda:1"),
    "a product of integers": lambda far, near: far.long() @ far.long(),
    "a packed product of the CPU": lambda far, near: torch.ops.mkldnn._linear_pointwise(
        far, near, None, "none", [], ""),
    "a copy that is not waited for": lambda far, near: far.to("cpu", non_blocking=True),
}  # fmt: skip


def stream(where: str) -> torch.Generator:
    return torch.Generator(where).manual_seed(0)


@pytest.mark.parametrize("case", REFUSED)
def test_it_refuses_what_cuda_refuses(case: str, device: Accelerator) -> None:
    far = torch.rand(4, 4, device="cuda")
    with pytest.raises((RuntimeError, TypeError)):
        REFUSED[case](far, torch.rand(4, 4))
    assert far.device.type == "cuda"


ALLOWED: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "a number of the CPU": lambda far, near: far + near.sum(),
    "an index of the CPU": lambda far, near: far[torch.arange(2)],
    "a mask of the CPU": lambda far, near: far[near > 0],
    "rows written as a whole": lambda far, near: far.__setitem__(slice(None), near),
    "a copy into a tensor": lambda far, near: far.copy_(near),
    "a tensor like another": lambda far, near: near.to(far) + far,
    "a generator of the device": lambda far, near: far.normal_(generator=stream("cuda")) + far,
    "numbers read out": lambda far, near: (far.tolist(), float(far.sum()), far.cpu().numpy()),
    "autocast": lambda far, near: autocast(far),
}  # fmt: skip


def autocast(far: Tensor) -> None:
    with torch.autocast("cuda", torch.bfloat16):
        assert torch.is_autocast_enabled("cuda")
        assert (far @ far).dtype == torch.bfloat16


@pytest.mark.parametrize("case", ALLOWED)
def test_it_allows_what_cuda_allows(case: str, device: Accelerator) -> None:
    far = torch.rand(4, 4, device="cuda")
    result = ALLOWED[case](far, torch.rand(4, 4))
    assert far.device.type == "cuda"
    assert not isinstance(result, Tensor) or result.device.type == "cuda"


def test_a_loss_may_flow_from_one_device_to_the_other(device: Accelerator) -> None:
    leaf = torch.ones(3, requires_grad=True)
    (leaf.to("cuda") * 2).sum().cpu().backward()
    assert leaf.grad is not None
    assert leaf.grad.device.type == "cpu"
    assert leaf.grad.tolist() == [2.0, 2.0, 2.0]


def test_hooks_and_other_threads_are_seen_too(device: Accelerator) -> None:
    leaf, near = torch.ones(3, device="cuda", requires_grad=True), torch.ones(3)
    leaf.register_hook(lambda grad: grad * near)
    with pytest.raises(RuntimeError, match="same device"):
        (leaf * 2).sum().backward()
    with ThreadPoolExecutor(1) as pool, pytest.raises(RuntimeError, match="same device"):
        pool.submit(lambda: leaf + near).result()


def test_the_device_s_random_stream_is_its_own(device: Accelerator) -> None:
    torch.manual_seed(3)
    here, there = torch.randn(4), torch.randn(4, device="cuda")
    assert not torch.equal(here, there.cpu())
    torch.manual_seed(3)
    with torch.random.fork_rng(devices=[torch.device("cuda")]):
        assert torch.equal(torch.randn(4, device="cuda"), there)
    assert torch.equal(torch.randn(4, device="cuda"), there)
    told = torch.randn(4, device="cuda", generator=stream("cuda"))
    assert not torch.equal(told.cpu(), torch.randn(4, generator=stream("cpu")))
