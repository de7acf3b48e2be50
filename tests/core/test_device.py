"""The device policy: choice, errors, freezing, moving."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from guided.core import device as policy
from guided.core.device import Device, available, fastest_precision, multiplies_bf16
from guided.errors import UsageError


@pytest.mark.parametrize(
    ("cuda", "mps", "wanted"),
    [
        (0, False, ["cpu"]),
        (0, True, ["mps", "cpu"]),
        (2, False, ["cuda", "cuda:0", "cuda:1", "cpu"]),
        (1, True, ["cuda", "cuda:0", "mps", "cpu"]),
    ],
)
def test_cuda_before_mps_before_cpu(
    monkeypatch: pytest.MonkeyPatch, cuda: int, mps: bool, wanted: list[str]
) -> None:
    monkeypatch.setattr(policy.torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(policy.torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(policy.torch.backends.mps, "is_available", lambda: mps)
    assert available() == wanted
    assert Device.pick().name == wanted[0]
    for name in wanted:
        assert Device.pick(name).name == name


def test_an_absent_device_is_named_with_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "available", lambda: ["cuda", "cuda:0", "cpu"])
    with pytest.raises(UsageError, match=r"no device 'cuda:7' here; .* cuda, cuda:0, cpu\."):
        Device.pick("cuda:7")


def test_settle_freezes_and_converts() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.BatchNorm1d(2))
    settled = Device("cpu", "bf16").prepare(module)
    assert settled is module
    assert not any(part.training for part in settled.modules())
    assert not any(parameter.requires_grad for parameter in settled.parameters())
    assert {parameter.dtype for parameter in settled.parameters()} == {torch.bfloat16}
    assert settled[2].num_batches_tracked.dtype == torch.int64


def test_move_converts_floats_only() -> None:
    device = Device("cpu", "bf16")
    assert device.move(torch.ones(2)).dtype == torch.bfloat16
    assert device.move(torch.arange(2)).dtype == torch.int64
    assert device.move(torch.tensor([True])).dtype == torch.bool
    assert Device("cpu").move(torch.ones(2).double()).dtype == torch.float32
    assert Device("meta").move(torch.ones(2)).device.type == "meta"


def test_a_device_is_a_plain_value() -> None:
    assert Device("cpu") == Device()
    assert len({Device(), Device("cpu", "fp32"), Device("cpu", "bf16")}) == 2
    assert Device().torch == torch.device("cpu")
    assert Device().dtype == torch.float32


@pytest.mark.parametrize(("able", "expected"), [(True, "bf16"), (False, "fp32")])
def test_bf16_only_where_the_processor_multiplies_it(
    monkeypatch: pytest.MonkeyPatch, able: bool, expected: str
) -> None:
    monkeypatch.setattr(policy, "multiplies_bf16", lambda device: able)
    assert fastest_precision(torch.device("cpu"), "bf16") == expected
    assert fastest_precision(torch.device("cpu"), "fp32") == "fp32"


def test_other_devices_multiply_bf16() -> None:
    assert multiplies_bf16(torch.device("cuda"))
    assert fastest_precision(torch.device("cuda"), "bf16") == "bf16"
