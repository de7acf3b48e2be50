"""Network pickles in NVIDIA's layout: their data comes out, their source is never run."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from pickle_writer import Call, Name, Net, Raw, dumps, tensor

from guided.errors import CannotDo, CorruptWeights, GuidedError, MissingWeights, UnsafeWeights
from guided.zoo.nvidia import NvidiaRecord, load_nvidia_pickle


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def generator(canary: Path) -> Net:
    layer = Net(
        "FullyConnectedLayer",
        {"weight": numbers(4, 3), "bias": numbers(4, seed=1)},
        attributes={"weight_gain": np.float64(0.25), "activation": "lrelu"},
    )
    mapping = Net("MappingNetwork", {}, {"w_avg": numbers(3, seed=2)}, {"fc0": layer})
    synthesis = Net(
        "SynthesisNetwork",
        {"const": numbers(2, 4, 4, seed=3)},
        {"resample_filter": numbers(4, 4, seed=4)},
        attributes={"block_resolutions": [4, 8], "half": Name("torch", "float16")},
    )
    source = f"open({str(canary)!r}, 'w').write('run')"
    return Net(
        "Generator", modules={"mapping": mapping, "synthesis": synthesis}, source=source,
        attributes={"z_dim": 3, "img_resolution": 8, "grid": np.arange(6).reshape(2, 3)},
    )  # fmt: skip


@pytest.mark.parametrize("protocol", [3, 4])
def test_a_network_pickle_comes_out_as_data(tmp_path: Path, protocol: int) -> None:
    canary = tmp_path / "canary"
    file = tmp_path / "net.pkl"
    net = generator(canary).call()
    content = {"G_ema": net, "D": None, "training_set_kwargs": {"path": "x.zip", "size": 8}}
    file.write_bytes(dumps(content, protocol))
    loaded = load_nvidia_pickle(file)
    assert loaded["training_set_kwargs"] == {"path": "x.zip", "size": 8}
    record = loaded["G_ema"]
    assert isinstance(record, NvidiaRecord)
    assert record.class_name == "Generator"
    assert record.state["z_dim"] == 3
    assert record.state["_init_kwargs"] == {"size": 8}
    assert record.state["grid"].tolist() == [[0, 1, 2], [3, 4, 5]]
    layer = record.state["_modules"]["mapping"].state["_modules"]["fc0"]
    assert (layer.class_name, layer.state["weight_gain"]) == ("FullyConnectedLayer", 0.25)
    assert record.state["_modules"]["synthesis"].state["half"] is torch.float16
    tensors = record.tensors()
    assert sorted(tensors) == [
        "mapping.fc0.bias", "mapping.fc0.weight", "mapping.w_avg",
        "synthesis.const", "synthesis.resample_filter",
    ]  # fmt: skip
    assert torch.equal(tensors["mapping.fc0.weight"], numbers(4, 3))
    assert torch.equal(tensors["synthesis.const"], numbers(2, 4, 4, seed=3))
    assert type(tensors["mapping.fc0.weight"]) is torch.Tensor
    assert not canary.exists()
    assert "module_src" not in repr(record.state)


def test_a_real_pickle_of_real_tensors_and_arrays(tmp_path: Path) -> None:
    """The standard pickler's own output, not only that of the writer in this folder."""
    content = {
        "half": numbers(3, 5).half(),
        "parameter": torch.nn.Parameter(numbers(2, 2)),
        "view": numbers(4, 6).t(),
        "integers": torch.arange(5),
        "array": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big endian": np.arange(3, dtype=">i4"),
        "number": np.float32(1.5),
        "empty": torch.zeros(0, 3),
        "shape": torch.Size([2, 3]),
    }
    file = tmp_path / "real.pkl"
    file.write_bytes(pickle.dumps(content))
    loaded = load_nvidia_pickle(file)
    for name in ("half", "parameter", "view", "integers", "empty"):
        assert torch.equal(loaded[name], content[name].detach()), name
        assert loaded[name].dtype == content[name].dtype
    assert np.array_equal(loaded["array"], content["array"])
    assert loaded["big endian"].tolist() == [0, 1, 2]
    assert (loaded["number"], loaded["shape"]) == (1.5, (2, 3))


def test_shared_and_circular_parts_end(tmp_path: Path) -> None:
    """A table that holds itself, and 2 ** 60 paths through 60 nested pairs."""
    file = tmp_path / "loop.pkl"
    loop: dict[str, object] = {}
    loop["self"] = loop
    file.write_bytes(pickle.dumps(loop))
    loaded = load_nvidia_pickle(file)
    assert loaded["self"] is loaded
    pairs: list[object] = []
    for _ in range(60):
        pairs = [pairs, pairs]
    file.write_bytes(pickle.dumps({"bomb": pairs}))
    assert len(load_nvidia_pickle(file)["bomb"]) == 2


def refused(tmp_path: Path, data: bytes, kind: type[GuidedError], said: str) -> None:
    file = tmp_path / "bad.pkl"
    file.write_bytes(data)
    with pytest.raises(kind, match=said) as caught:
        load_nvidia_pickle(file)
    assert str(file) in str(caught.value)
    assert len(str(caught.value)) < 600


def test_tensorflow_networks_are_refused_with_the_reason(tmp_path: Path) -> None:
    net = Call("dnnlib.tflib.network", "Network", (), state={"version": 4}, by="NEWOBJ")
    refused(tmp_path, dumps((net, net, net), 3), CannotDo, "TensorFlow network.*Convert it")


def test_a_torch_archive_is_recognised(tmp_path: Path) -> None:
    file = tmp_path / "model.pkl"
    torch.save({"a": numbers(2)}, file)
    with pytest.raises(CorruptWeights, match=r"a torch archive.*ending \.pt"):
        load_nvidia_pickle(file)


def test_other_content_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, dumps([1, 2]), CorruptWeights, "holds list, not a table")
    refused(tmp_path, b"", CorruptWeights, "is not a network pickle")
    refused(tmp_path, b"\x89PNG\r\n", CorruptWeights, "is not a network pickle")
    refused(tmp_path, b"\x80\x04\xff", CorruptWeights, "damaged or not a network pickle")
    with pytest.raises(MissingWeights, match=r"There is no weight file .*none\.pkl"):
        load_nvidia_pickle(tmp_path / "none.pkl")


GOOD = tensor(torch.arange(6.0))
STORAGE = GOOD.args[0]


@pytest.mark.parametrize(
    "args",
    [
        (STORAGE, 0, (7,), (1,)),  # one more than there is
        (STORAGE, 3, (4,), (1,)),  # ends behind the end
        (STORAGE, 0, (1000000, 1000000), (0, 0)),  # a terabyte in one element
        (STORAGE, -1, (2,), (1,)),
        (STORAGE, 0, (2,), (-1,)),
        (STORAGE, 0, (2, 2), (1,)),
        (STORAGE, 0, (2.5,), (1,)),
        (STORAGE, 0, "ab", "cd"),
        ("no storage", 0, (2,), (1,)),
    ],
)
def test_impossible_tensors_are_refused(tmp_path: Path, args: tuple[object, ...]) -> None:
    bad = Call("torch._utils", "_rebuild_tensor_v2", (*args, False, {}))
    refused(tmp_path, dumps({"a": bad}), CorruptWeights, "malformed|claims more elements")


def dtype(code: object, order: object = "<") -> Call:
    return Call("numpy", "dtype", (code,), state=(3, order))


def numpy_array(shape: object, data: object, kind: object) -> Call:
    args = (Name("numpy", "ndarray"), (0,), b"b")
    return Call("numpy.core.multiarray", "_reconstruct", args, state=(1, shape, kind, False, data))


@pytest.mark.parametrize(
    "value",
    [
        dtype("O8"),
        dtype("V8"),
        dtype(8),
        dtype("f8", "X"),
        dtype("f8", 3),
        numpy_array((3,), bytes(16), dtype("f8")),
        numpy_array((-2,), bytes(16), dtype("f8")),
        numpy_array((2,), [1, 2], dtype("f8")),
        numpy_array((2,), bytes(16), "f8"),
        numpy_array(2, bytes(16), dtype("f8")),
        Call("numpy.core.multiarray", "scalar", (dtype("f8"), bytes(7))),
        Call("numpy.core.multiarray", "scalar", ("f8", bytes(8))),
        Call("numpy", "ndarray", ((2,),)),
        Call("torch.storage", "_load_from_bytes", ("text",)),
        Call("torch.storage", "_load_from_bytes", (b"not a torch file",)),
        Call("torch._utils", "_rebuild_parameter", (3, True, {})),
        Call("torch", "Size", (5,)),
        Call("torch", "device", (5,)),
        Call("torch_utils.persistence", "_reconstruct_persistent_obj", ({"type": "module"},)),
        Call("torch_utils.persistence", "_reconstruct_persistent_obj", ({"type": "class"},)),
        Call("torch_utils.persistence", "_reconstruct_persistent_obj", ([],)),
        {(1, 2): 3},
        {None: 3},
    ],
)
def test_malformed_arguments_are_refused(tmp_path: Path, value: object) -> None:
    refused(tmp_path, dumps({"a": value}), CorruptWeights, "malformed|damaged|no plain values")


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        (Name("torch._utils", "_rebuild_tensor_v2"), UnsafeWeights),
        (GOOD, UnsafeWeights),
        (STORAGE, UnsafeWeights),
        (Net("Generator").call(), UnsafeWeights),
        (Name("dnnlib.util", "EasyDict"), CorruptWeights),
        (Name("collections", "OrderedDict"), CorruptWeights),
        (Name("torch", "float32"), CorruptWeights),
    ],
)
@pytest.mark.parametrize("state", [{"_content": 1}, "slots"])
def test_no_object_can_be_changed_by_the_pickle(
    tmp_path: Path, target: object, kind: type[GuidedError], state: object
) -> None:
    state = (None, {"_content": 1}) if state == "slots" else state
    build = b"".join(dumps(part)[2:-1] for part in (target, state)) + b"b"
    refused(tmp_path, dumps({"a": Raw(build)}), kind, "tries to change|damaged")


def test_items_cannot_be_set_on_tensors(tmp_path: Path) -> None:
    code = dumps(GOOD)[2:-1] + dumps(0)[2:-1] + dumps(5.0)[2:-1] + b"s"
    refused(tmp_path, dumps({"a": Raw(code)}), CorruptWeights, "damaged")


def test_a_state_cannot_shadow_the_methods_of_a_table(tmp_path: Path) -> None:
    table = Call("collections", "OrderedDict", (), (("x", 1),), {"items": Name("torch", "Size")})
    file = tmp_path / "shadow.pkl"
    file.write_bytes(dumps({"a": table}))
    assert load_nvidia_pickle(file) == {"a": {"x": 1}}


def test_constructors_do_not_stay_in_the_result(tmp_path: Path) -> None:
    name = Name("torch._utils", "_rebuild_tensor_v2")
    refused(
        tmp_path, dumps({"a": name}), UnsafeWeights, "leaves a Constructor where data should be"
    )


def test_instructions_beyond_the_list_are_refused(tmp_path: Path) -> None:
    refused(tmp_path, b"\x80\x04I5\n.", UnsafeWeights, "instruction INT at byte 2 is not allowed")
    refused(tmp_path, b"\x80\x04}\x82\x01.", UnsafeWeights, "EXT1")
    refused(tmp_path, b"\x80\x04}Pabc\n.", UnsafeWeights, "PERSID")
    refused(tmp_path, b"\x80\x04}(ios\nsystem\n.", UnsafeWeights, "INST")
    bytearray8 = b"\x80\x05\x96" + struct.pack("<Q", 3) + b"abc."
    refused(tmp_path, bytearray8, UnsafeWeights, "BYTEARRAY8")


def test_memo_numbers_cannot_fill_the_memory(tmp_path: Path) -> None:
    bomb = b"\x80\x04}r" + struct.pack("<I", 0x7FFFFFFF) + b"."
    refused(tmp_path, bomb, CorruptWeights, "memo number 2147483647 at byte 3 is impossible")


def test_depth_is_limited(tmp_path: Path) -> None:
    refused(tmp_path, dumps({"a": Raw(b"]" * 2000 + b"a" * 1999)}), CorruptWeights, "too deeply")
    net = Net("Leaf", {"w": numbers(1)})
    for _ in range(70):
        net = Net("Shell", modules={"inner": net})
    state = NvidiaRecord("Leaf", {"_parameters": {"w": numbers(1)}})
    for _ in range(70):
        state = NvidiaRecord("Shell", {"_modules": {"inner": state}})
    with pytest.raises(CorruptWeights, match="nests its modules deeper than 64"):
        state.tensors()


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    data = dumps({"G_ema": generator(tmp_path / "canary").call()})
    file = tmp_path / "cut.pkl"
    for length in range(0, len(data) - 1, 97):
        file.write_bytes(data[:length])
        with pytest.raises((CorruptWeights, UnsafeWeights)):
            load_nvidia_pickle(file)


def mutations(tmp_path: Path, count: int) -> None:
    data = dumps({"G_ema": generator(tmp_path / "canary").call()})
    file = tmp_path / "wounded.pkl"
    for number in range(count):
        rng = np.random.default_rng((11, number))
        wounded = bytearray(data)
        for _ in range(int(rng.integers(1, 4))):
            wounded[int(rng.integers(len(wounded)))] = int(rng.integers(256))
        file.write_bytes(wounded)
        try:
            loaded = load_nvidia_pickle(file)
        except GuidedError as error:
            assert len(str(error)) < 600  # noqa: PT017 - any refusal is fine, a long one is not
        else:
            assert isinstance(loaded, dict)
        assert not (tmp_path / "canary").exists()


def test_mutated_network_pickles_quick(tmp_path: Path) -> None:
    mutations(tmp_path, 200)


@pytest.mark.soak
def test_mutated_network_pickles_soak(tmp_path: Path) -> None:
    mutations(tmp_path, 3000)
