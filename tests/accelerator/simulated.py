"""A second device for machines without one: ``with accelerator() as device: ...``.

Within the context torch has one CUDA device, "cuda" or "cuda:0".  Its tensors are ordinary CPU
tensors whose storage bears a mark, so that views, parameters, buffers, gradients and what autograd
saves keep it, every kernel (attention and convolution too) is the CPU's, and every value is equal
to the CPU's bit by bit.  A function mode answers ``.device``, redirects factories, ``.to`` and
``torch.Generator``, and refuses what CUDA refuses: operands of two devices, ``.numpy()``, a
generator of the other device, CPU-only and integer products.

Three things differ from the CPU on purpose, so that a comparison of numbers notices them: the
device's random stream gives other numbers from the same seed; ``products`` counts the matrix
products, convolutions and attentions of each device; a copy to the CPU with ``non_blocking`` is
refused, because it would be read before it is whole.

Not seen: what torch does inside one of its own functions, whose operands are checked as a whole.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

import guided

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
#: The folder of the package, whatever folder a checkout is in.
PACKAGE = str(guided.__path__[0])
_MIXED = "Expected all tensors to be on the same device, but found at least two devices"
#: Functions whose operands may lie on two devices, or that only look at shapes and types.
_MAY_MIX = {
    "copy_", "expand_as", "view_as", "reshape_as", "result_type", "broadcast_tensors",
    "is_same_size", "_has_compatible_shallow_copy_type", "_record_function_enter_new", "type_as",
}  # fmt: skip
#: Functions that take no CPU number beside the device's tensors.
_STRICT = {"cat", "stack", "concat", "hstack", "vstack", "index_select", "gather", "embedding"}
_CPU_ONLY = {
    "_linear_pointwise", "_reorder_linear_weight", "qlinear_pointwise", "qlinear_prepack",
    "_convolution_pointwise", "to_mkldnn",
}  # fmt: skip
_PRODUCTS = {
    "linear", "matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "addmm", "baddbmm", "einsum",
    "conv1d", "conv2d", "conv_transpose2d", "scaled_dot_product_attention",
    "multi_head_attention_forward", "_native_multi_head_attention", "addmv", "mv", "dot",
}  # fmt: skip
_DRAWS = {"rand", "randn", "randint", "randperm", "normal", "multinomial", "bernoulli", "normal_",
          "uniform_", "random_", "exponential_", "bernoulli_", "rand_like", "randn_like",
          "randint_like"}  # fmt: skip


class Generator(torch._C.Generator):
    """``torch.Generator`` that also takes the simulated device."""

    def __new__(cls, device: Any = "cpu") -> Generator:
        made = super().__new__(cls)
        made.place = _place(device) or CPU
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.place

    def manual_seed(self, seed: int) -> Generator:
        return super().manual_seed(seed ^ 0xD0DE if self.place.type == "cuda" else seed)


def _place(device: Any) -> torch.device | None:
    if device is None:
        return None
    device = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    if device.type == "cuda" and device.index not in (None, 0):
        raise RuntimeError("CUDA error: invalid device ordinal")
    return device


def marked(tensor: Tensor) -> bool:
    """Whether a tensor lies on the simulated device; outside of the mode's own answers."""
    try:
        return "simulated" in tensor.untyped_storage().__dict__
    except (RuntimeError, NotImplementedError):  # no storage
        return False


def _mark(value: Any) -> Any:
    for tensor in _tensors(value):
        if tensor.device.type == "cpu":
            tensor.untyped_storage().simulated = True  # type: ignore[attr-defined]
    return value


def _tensors(value: Any) -> list[Tensor]:
    """The tensors in a nest of lists and tables."""
    found: list[Tensor] = []
    waiting = [value]
    for each in waiting:
        if isinstance(each, Tensor):
            found.append(each)
        elif isinstance(each, list | tuple | set):
            waiting.extend(each)
        elif isinstance(each, dict):
            waiting.extend(each.values())
    return found


def _is_number(index: Tensor) -> bool:
    """Whether an index is a whole number, which torch reads out wherever it lies."""
    return index.dim() == 0 and not (index.is_floating_point() or index.dtype == torch.bool)


class Accelerator(TorchFunctionMode):
    """The simulated device; ``products`` counts by device type, ``on_cpu`` says where."""

    def __init__(self) -> None:
        super().__init__()
        self.products: Counter[str] = Counter()
        self.on_cpu: Counter[str] = Counter()
        self.stream = Generator("cuda")
        self.answers: dict[Any, Callable[..., Any]] = {
            Tensor.device.__get__: self._device,
            Tensor.is_cuda.__get__: lambda t: marked(t),
            Tensor.is_cpu.__get__: lambda t: t.is_cpu and not marked(t),
            Tensor.get_device: lambda t: 0 if marked(t) else t.get_device(),
            Tensor.grad.__get__: self._grad,
            Tensor.data.__set__: lambda t, value: Tensor.data.__set__(t, value),
            Tensor.to: self._to,
            Tensor.cuda: lambda t, device="cuda", **more: self._to(t, device, **more),
            Tensor.cpu: lambda t, **more: self._to(t, "cpu", **more),
            Tensor.pin_memory: lambda t, *_: t,
            Tensor.numpy: functools.partial(self._numpy, Tensor.numpy),
            Tensor.__array__: functools.partial(self._numpy, Tensor.__array__),
            Tensor.__getitem__: functools.partial(self._index, Tensor.__getitem__),
            Tensor.__setitem__: functools.partial(self._index, Tensor.__setitem__),
            Tensor.index_put_: functools.partial(self._index, Tensor.index_put_),
            Tensor.register_hook: self._hook,
            Tensor.backward: Tensor.backward,
            torch.autograd.backward: torch.autograd.backward,
            torch.autograd.grad: self._gradients,
            torch.tensor: functools.partial(self._factory, torch.tensor),
            torch.as_tensor: self._as_tensor,
            torch.asarray: self._as_tensor,
        }

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if (answer := self.answers.get(func)) is not None:
            return answer(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name == "__get__":  # of one tensor
            result = func(*args)
            return _mark(result) if isinstance(result, Tensor) and marked(args[0]) else result
        if kwargs.get("device") is not None and name != "_parse_to":
            return self._factory(func, *args, **kwargs)
        operands = _tensors((args, kwargs))
        there = [marked(tensor) for tensor in operands]
        if any(there) and name not in _MAY_MIX:
            self._refuse_mixture(name, args, operands, there)
        if name in _PRODUCTS and operands:
            self._count(name, operands, any(there))
        if name in _DRAWS:
            return self._draw(func, args, kwargs, device=any(there))
        result = func(*args, **kwargs)
        if any(there) and name not in _MAY_MIX:
            _mark(result)
        return result

    def _refuse_mixture(
        self, name: str, args: Any, operands: list[Tensor], there: list[bool]
    ) -> None:
        if name in _CPU_ONLY:
            raise NotImplementedError(f"Could not run '{name}' with arguments from 'CUDA'")
        changed = args[0] if args and name.endswith("_") and not name.endswith("__") else None
        for tensor, far in zip(operands, there, strict=True):
            if far or tensor.device.type != "cpu":
                continue
            if tensor.dim() or name in _STRICT or tensor is changed:
                raise RuntimeError(f"{_MIXED}, cuda:0 and cpu! (in {name})")

    def _count(self, name: str, operands: list[Tensor], there: bool) -> None:
        self.products["cuda" if there else "cpu"] += 1
        if there and not (operands[-1].is_floating_point() or operands[-1].is_complex()):
            raise RuntimeError(f'"{name}_cuda" not implemented for {operands[-1].dtype}')
        if not there:
            frames = traceback.extract_stack(limit=40)
            ours = [frame for frame in frames if frame.filename.startswith(PACKAGE)]
            self.on_cpu[f"{ours[-1].filename}:{ours[-1].lineno}" if ours else name] += 1

    def random_state(self, device: Any = None) -> Tensor:
        """The state of the device's random stream."""
        return self.stream.get_state()

    def set_random_state(self, state: Tensor, device: Any = None) -> None:
        """Put it back."""
        self.stream.set_state(state)

    def _device(self, tensor: Tensor) -> torch.device:
        return CUDA if marked(tensor) else tensor.device

    def _grad(self, tensor: Tensor) -> Tensor | None:
        grad = tensor.grad
        return _mark(grad) if grad is not None and marked(tensor) else grad

    def _gradients(self, outputs: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        found = torch.autograd.grad(outputs, inputs, *args, **kwargs)
        given = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
        for grad, tensor in zip(found, given, strict=True):
            if grad is not None and marked(tensor):
                _mark(grad)
        return found

    def _hook(self, tensor: Tensor, hook: Callable[[Tensor], Any]) -> Any:
        there = marked(tensor)
        return tensor.register_hook(lambda grad: hook(_mark(grad) if there else grad))

    def _numpy(self, func: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        if marked(tensor):
            raise TypeError(
                "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the "
                "tensor to host memory first."
            )
        return func(tensor, *args, **kwargs)

    def _index(self, func: Any, tensor: Tensor, index: Any, *value: Any, **kwargs: Any) -> Any:
        there, indices = marked(tensor), [each for each in _tensors(index) if not _is_number(each)]
        if not there and any(map(marked, indices)):
            raise RuntimeError("indices should be either on cpu or on the same device (cpu)")
        for each in _tensors(value):
            far = marked(each)
            if far != there and indices and each.dim():
                raise RuntimeError(f"{_MIXED}, cuda:0 and cpu! (in index_put_)")
        result = func(tensor, index, *value, **kwargs)
        return _mark(result) if there and isinstance(result, Tensor) else result

    def _to(self, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        there = wanted = marked(tensor)
        other = args[0] if args and isinstance(args[0], Tensor) else kwargs.pop("other", None)
        copy = kwargs.pop("copy", False)
        if other is not None:
            wanted, dtype, blocking, layout = marked(other), other.dtype, True, None
        else:
            place, dtype, loose, layout = torch._C._nn._parse_to(*args, **kwargs)
            if place is not None and place.type not in ("cpu", "cuda"):
                return tensor.to(*args, **kwargs)
            wanted = there if place is None else _place(place).type == "cuda"  # type: ignore[union-attr]
            blocking = not loose
        if there and not wanted and not blocking:
            raise RuntimeError("a copy to the CPU with non_blocking is read before it is whole")
        more = {} if layout is None else {"memory_format": layout}
        moved = tensor.to(dtype=dtype or tensor.dtype, copy=copy, **more)
        if wanted != there and moved.device.type == "cpu":
            if moved.untyped_storage() is tensor.untyped_storage():
                moved = moved.clone()
            if wanted:
                _mark(moved)
        elif wanted:
            _mark(moved)
        return moved

    def _factory(self, func: Any, *args: Any, device: Any = None, **kwargs: Any) -> Any:
        place = _place(device)
        if func is torch.tensor and place is None and isinstance(args[0], Tensor):
            place = self._device(args[0])
        if place is None or place.type not in ("cpu", "cuda"):
            return func(*args, **kwargs) if device is None else func(*args, device=device, **kwargs)
        there = place.type == "cuda"
        if getattr(func, "__name__", "") in _DRAWS:
            return self._draw(func, args, {**kwargs, "device": CPU}, device=there)
        made = func(*args, device=CPU, **kwargs)
        return _mark(made) if there else made

    def _as_tensor(self, data: Any, *args: Any, device: Any = None, **kwargs: Any) -> Tensor:
        if isinstance(data, Tensor):
            dtype = kwargs.get("dtype") or (args[0] if args else None)
            return self._to(data, self._device(data) if device is None else device, dtype)
        return self._factory(torch.as_tensor, data, *args, device=device, **kwargs)

    def _draw(self, func: Any, args: Any, kwargs: dict[str, Any], *, device: bool) -> Any:
        given = kwargs.get("generator")
        if given is not None and (given.device.type == "cuda") != device:
            wanted = "cuda" if device else "cpu"
            raise RuntimeError(
                f"Expected a '{wanted}' device type for generator but found '{given.device.type}'"
            )
        if given is None and device:
            kwargs = {**kwargs, "generator": self.stream}
        made = func(*args, **kwargs)
        return _mark(made) if device else made


def _patches(mode: Accelerator) -> Iterator[Any]:
    cuda, run = torch.cuda, threading.Thread.run
    replies = {
        "is_available": True, "is_initialized": True, "device_count": 1, "current_device": 0,
        "synchronize": None, "empty_cache": None, "init": None, "_lazy_init": None,
        "get_device_name": "simulated", "get_device_capability": (9, 0), "set_device": None,
        "is_bf16_supported": True, "mem_get_info": (2**33, 2**33), "memory_allocated": 0,
        "max_memory_allocated": 0, "reset_peak_memory_stats": None, "ipc_collect": None,
    }  # fmt: skip
    for name, reply in replies.items():
        yield mock.patch.object(cuda, name, lambda *_, reply=reply, **__: reply)
    # asked about the capture of graphs
    yield mock.patch.object(torch.accelerator, "current_accelerator", return_value=None)
    seed = mode.stream.manual_seed
    yield mock.patch.object(cuda, "manual_seed", lambda number: seed(int(number)) and None)
    yield mock.patch.object(cuda, "manual_seed_all", lambda number: seed(int(number)) and None)
    yield mock.patch.object(cuda, "get_rng_state", mode.random_state)
    yield mock.patch.object(cuda, "set_rng_state", mode.set_random_state)
    yield mock.patch.object(torch, "Generator", Generator)
    kinds = {"cuda": "cpu"}
    for name in ("is_autocast_enabled", "get_autocast_dtype"):
        ask = getattr(torch, name)
        told = lambda *kind, ask=ask: ask(*(kinds.get(each, each) for each in kind))  # noqa: E731
        yield mock.patch.object(torch, name, told)
    enter = torch.autocast.__init__

    def autocast(self: Any, device_type: str, *args: Any, **kwargs: Any) -> None:
        enter(self, kinds.get(device_type, device_type), *args, **kwargs)

    yield mock.patch.object(torch.autocast, "__init__", autocast)
    engine = torch.autograd._engine_run_backward

    def backward(*args: Any, **kwargs: Any) -> Any:
        with mode:  # the hooks' and functions' own products
            return engine(*args, **kwargs)

    def thread(self: threading.Thread) -> None:
        with mode:
            run(self)

    group = torch._C._group_tensors_by_device_and_dtype

    def grouped(lists: Any, *more: Any) -> Any:
        found = group(lists, *more).items()
        return {
            (CUDA if any(map(marked, _tensors(value[0][0][:1]))) else device, dtype): value
            for (device, dtype), value in found
        }

    yield mock.patch.object(torch._C, "_group_tensors_by_device_and_dtype", grouped)
    yield mock.patch.object(torch.autograd, "_engine_run_backward", backward)
    yield mock.patch.object(threading.Thread, "run", thread)


def _forget() -> None:
    """What transformers remembers of torch's devices is asked again."""
    module = sys.modules.get("transformers.utils.import_utils")
    for name, value in list(vars(module).items()) if module else ():
        if isinstance(value, functools._lru_cache_wrapper) and ("torch" in name or "cuda" in name):
            value.cache_clear()


@contextlib.contextmanager
def accelerator() -> Iterator[Accelerator]:
    """Within it there is a simulated device "cuda"."""
    mode = Accelerator()
    mode.stream.manual_seed(0)
    with contextlib.ExitStack() as stack:
        for patch in _patches(mode):
            stack.enter_context(patch)
        _forget()
        stack.callback(_forget)
        stack.enter_context(mode)
        yield mode
