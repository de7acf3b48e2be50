"""A pickle's instructions followed without executing any: what it names, claims and would cost.

Python's own readers spend what a pickle asks for before anyone can object: a tuple in a tuple
sixty times as a key is hashed 2 ** 60 times, one text of a megabyte is copied by each call it is
given to, equal hashes make a table quadratic.  ``follow`` keeps books instead: it builds inert
lists and tuples (nothing is hashed, copied, imported or called) and refuses what exceeds a budget.
It needs no torch.
"""

from __future__ import annotations

import gc
import struct
from collections.abc import Callable
from typing import Any

from guided.errors import CorruptWeights, UnsafeWeights
from guided.zoo.pickle_machine import Blob, Global, Machine, Rules, Table

_MAX_LONG = 1024
_SHORT = 300


def _constant(value: Any) -> Callable[[Machine], None]:
    return lambda m: m.stack.append(value)


def _fresh(make: Callable[[], Any]) -> Callable[[Machine], None]:
    return lambda m: m.stack.append(make())


def _whole(layout: str) -> Callable[[Machine], None]:
    return lambda m: m.stack.append(m.number(layout))


def _text(layout: str, encoding: str) -> Callable[[Machine], None]:
    def step(m: Machine) -> None:
        length = m.number(layout)
        raw = m.take(length)
        short = 0 <= length <= _SHORT
        m.stack.append(
            bytes(raw).decode(encoding, "replace") if short else Blob(m.at - length, length)
        )

    return step


def _bytes(layout: str) -> Callable[[Machine], None]:
    def step(m: Machine) -> None:
        length = m.number(layout)
        if length < 0:
            raise CorruptWeights("its pickle has a text of negative length.")
        m.take(length)
        m.stack.append(Blob(m.at - length, length))

    return step


def _long(layout: str) -> Callable[[Machine], None]:
    def step(m: Machine) -> None:
        length = m.number(layout)
        if not 0 <= length <= _MAX_LONG:
            raise CorruptWeights(f"its pickle has a whole number of {length} bytes.")
        m.stack.append(int.from_bytes(bytes(m.take(length)), "little", signed=True))

    return step


def _tuple(count: int) -> Callable[[Machine], None]:
    def step(m: Machine) -> None:
        at = len(m.stack) - count
        if at < (m.marks[-1] if m.marks else 0):
            raise CorruptWeights("its pickle takes more than it has put down.")
        m.stack[at:] = [tuple(m.stack[at:])]

    return step


def _append(m: Machine) -> None:
    item, target = m.pop(), m.top()
    if isinstance(target, list):
        target.append(item)


def _appends(m: Machine) -> None:
    items, target = m.since_mark(), m.top()
    if isinstance(target, list):
        target += items


def _set_item(m: Machine) -> None:
    value, key = m.pop(), m.pop()
    m.put(m.top(), [key, value])


def _set_items(m: Machine) -> None:
    items = m.since_mark()
    m.put(m.top(), items)


def _members(items: list[Any]) -> list[Any]:
    """The members of a set as keys without values."""
    return [part for item in items for part in (item, None)]


def _add_items(m: Machine) -> None:
    items = m.since_mark()
    m.put(m.top(), _members(items))


def _dict(m: Machine) -> None:
    items, table = m.since_mark(), Table()
    m.put(table, items)
    m.stack.append(table)


def _frozen(m: Machine) -> None:
    items, table = m.since_mark(), Table()
    m.put(table, _members(items))
    m.stack.append(table)


def _pop(m: Machine) -> None:
    if m.marks and m.marks[-1] == len(m.stack):
        m.marks.pop()
    else:
        m.pop()


def _global(m: Machine) -> None:
    module, name = m.line(), m.line()
    m.rules.name(module, name)
    m.stack.append(Global(module, name))


def _stack_global(m: Machine) -> None:
    name, module = m.pop(), m.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise CorruptWeights("a name in its pickle is malformed.")
    m.rules.name(module, name)
    m.stack.append(Global(module, name))


def _call(m: Machine) -> None:
    arguments, function = m.pop(), m.pop()
    m.stack.append(m.called(function, arguments))


def _build(m: Machine) -> None:
    state = m.pop()
    m.charge(state)
    m.top()


def _persistent(m: Machine) -> None:
    m.stack.append(m.rules.persistent(m.pop()))


def _frame(m: Machine) -> None:
    length = m.number("<Q")
    if length > len(m.data) - m.at:
        raise CorruptWeights(f"its pickle announces {length} bytes that are not there.")


def _float(m: Machine) -> None:
    m.take(8)
    m.stack.append(0.5)


def _stop(m: Machine) -> None:
    """The end; seen by ``run``."""


_STEPS: dict[str, tuple[int, Callable[[Machine], Any]]] = {
    "PROTO": (0x80, lambda m: m.take(1)), "FRAME": (0x95, _frame), "STOP": (0x2E, _stop),
    "MARK": (0x28, lambda m: m.marks.append(len(m.stack))), "POP": (0x30, _pop),
    "POP_MARK": (0x31, lambda m: m.since_mark()),
    "DUP": (0x32, lambda m: m.stack.append(m.top())),
    "NONE": (0x4E, _constant(None)), "NEWTRUE": (0x88, _constant(True)),
    "NEWFALSE": (0x89, _constant(False)), "BINFLOAT": (0x47, _float),
    "BININT": (0x4A, _whole("<i")), "BININT1": (0x4B, _whole("<B")),
    "BININT2": (0x4D, _whole("<H")),
    "LONG1": (0x8A, _long("<B")), "LONG4": (0x8B, _long("<i")),
    "BINSTRING": (0x54, _text("<i", "latin-1")),
    "SHORT_BINSTRING": (0x55, _text("<B", "latin-1")),
    "BINUNICODE": (0x58, _text("<I", "utf-8")), "SHORT_BINUNICODE": (0x8C, _text("<B", "utf-8")),
    "BINUNICODE8": (0x8D, _text("<Q", "utf-8")),
    "BINBYTES": (0x42, _bytes("<I")), "SHORT_BINBYTES": (0x43, _bytes("<B")),
    "BINBYTES8": (0x8E, _bytes("<Q")),
    "EMPTY_LIST": (0x5D, _fresh(list)), "EMPTY_DICT": (0x7D, _fresh(Table)),
    "EMPTY_SET": (0x8F, _fresh(Table)), "EMPTY_TUPLE": (0x29, _constant(())),
    "APPEND": (0x61, _append), "APPENDS": (0x65, _appends),
    "LIST": (0x6C, lambda m: m.stack.append(m.since_mark())), "ADDITEMS": (0x90, _add_items),
    "FROZENSET": (0x91, _frozen), "TUPLE": (0x74, lambda m: m.stack.append(tuple(m.since_mark()))),
    "TUPLE1": (0x85, _tuple(1)), "TUPLE2": (0x86, _tuple(2)), "TUPLE3": (0x87, _tuple(3)),
    "DICT": (0x64, _dict), "SETITEM": (0x73, _set_item), "SETITEMS": (0x75, _set_items),
    "BINGET": (0x68, lambda m: m.recall(m.number("<B"))),
    "LONG_BINGET": (0x6A, lambda m: m.recall(m.number("<I"))),
    "BINPUT": (0x71, lambda m: m.remember(m.number("<B"))),
    "LONG_BINPUT": (0x72, lambda m: m.remember(m.number("<I"))),
    "MEMOIZE": (0x94, lambda m: m.remember(len(m.memo))),
    "GLOBAL": (0x63, _global), "STACK_GLOBAL": (0x93, _stack_global),
    "REDUCE": (0x52, _call), "BUILD": (0x62, _build), "NEWOBJ": (0x81, _call),
    "BINPERSID": (0x51, _persistent),
}  # fmt: skip
_DEAR = {_STEPS[name][0]: 6 for name in ("EMPTY_SET", "GLOBAL", "STACK_GLOBAL", "FROZENSET")}
INSTRUCTIONS = frozenset(_STEPS)
"""The instructions that data, calls of allowed constructors and their states need."""


def follow(data: bytes | memoryview, rules: Rules, start: int = 0) -> tuple[Any, int]:
    """What a pickle leaves on its stack, as inert values, and the place behind its end.

    Raises:
        CorruptWeights: damaged, or more steps, calls, bytes or key parts than the budget.
        UnsafeWeights: an instruction or a name that ``rules`` do not allow.
    """
    machine = Machine(memoryview(data), rules, start)
    collecting = gc.isenabled()
    gc.disable()  # nothing here is circular, and looking for what is takes most of the time
    try:
        return _run(machine), machine.at
    except (IndexError, struct.error) as error:
        raise CorruptWeights(f"its pickle breaks off at byte {machine.at}.") from error
    finally:
        if collecting:
            gc.enable()


def _run(machine: Machine) -> Any:
    data, end = machine.data, len(machine.data)
    table = {code: step for name, (code, step) in _STEPS.items() if name in machine.rules.allowed}
    while machine.at < end:
        code = data[machine.at]
        step = table.get(code)
        if step is None and _name(code) == "":
            raise _damaged(machine, f"byte {machine.at} of its pickle is no instruction")
        if step is None:
            raise UnsafeWeights(
                f"the pickle instruction {_name(code)} at byte {machine.at} is not allowed.",
                hint=machine.rules.hint,
            )
        machine.at += 1
        machine.steps += _DEAR.get(code, 1)
        if machine.steps > machine.limit:
            raise CorruptWeights(f"it has more than {machine.limit} instructions.")
        if step is _stop:
            return machine.pop()
        step(machine)
    raise _damaged(machine, "its pickle breaks off before its end")


def _damaged(machine: Machine, why: str) -> CorruptWeights:
    return CorruptWeights(f"it is damaged or not {machine.rules.kind} ({why}).")


def _name(code: int) -> str:
    import pickletools

    return next((op.name for op in pickletools.opcodes if ord(op.code) == code), "")
