"""Thirty pickles that would write a canary file if anything in them were run."""

from __future__ import annotations

import marshal
import pickle
import struct
import zlib
from pathlib import Path

from pickle_writer import Call, Name, Net, Raw, dumps, text


def attacks(canary: Path, protocol: int = 4) -> dict[str, bytes]:
    """The attacks by name: each, run by ``pickle.loads``, would make ``canary`` appear."""
    python = f"__import__('pathlib').Path({str(canary)!r}).touch()"
    shell = f"touch {canary}"
    code = marshal.dumps(compile(python, "x", "exec"))
    write = Call("builtins", "exec", (python,))
    nested = pickle.dumps(None)[:2] + dumps(write)[2:]
    calls: dict[str, Call] = {
        "os.system": Call("os", "system", (shell,)),
        "posix.system": Call("posix", "system", (shell,)),
        "nt.system": Call("nt", "system", (shell,)),
        "subprocess.call": Call("subprocess", "call", (["touch", str(canary)],)),
        "subprocess.Popen": Call("subprocess", "Popen", (["touch", str(canary)],)),
        "os.popen": Call("os", "popen", (shell,)),
        "os.spawnlp": Call("os", "spawnlp", (0, "touch", "touch", str(canary))),
        "pty.spawn": Call("pty", "spawn", (["touch", str(canary)],)),
        "builtins.eval": Call("builtins", "eval", (python,)),
        "builtins.exec": write,
        "__builtin__.eval": Call("__builtin__", "eval", (python,)),
        "builtins.compile": Call("builtins", "compile", (python, "x", "exec")),
        "builtins.open": Call("builtins", "open", (str(canary), "w")),
        "io.open": Call("io", "open", (str(canary), "w")),
        "pathlib.touch": Call("pathlib", "Path.touch", (Call("pathlib", "Path", (str(canary),)),)),
    }
    made = {name: dumps({"G_ema": call}, protocol) for name, call in calls.items()}
    for name, call in _indirect(canary, python, shell, code, nested).items():
        made[name] = dumps({"G_ema": call}, protocol)
    return made | _crafted(canary, write, shell)


def _indirect(canary: Path, python: str, shell: str, code: bytes, nested: bytes) -> dict[str, Call]:
    """Attacks that reach a dangerous function by way of a library."""
    return {
        "importlib": Call("importlib", "import_module", ("this",)),
        "builtins.getattr": Call("builtins", "getattr", (Name("os", "path"), "os")),
        "operator.attrgetter": Call("operator", "attrgetter", ("system",)),
        "operator.methodcaller": Call("operator", "methodcaller", ("system", shell)),
        "functools.partial": Call("functools", "partial", (Name("os", "system"), shell)),
        "functools.reduce": Call("functools", "reduce", (Name("os", "system"), [shell])),
        "runpy": Call("runpy", "run_path", (str(canary.with_suffix(".py")),)),
        "code.InteractiveInterpreter": Call("code", "InteractiveInterpreter"),
        "timeit.timeit": Call("timeit", "timeit", (python,)),
        "cProfile.run": Call("cProfile", "run", (python,)),
        "marshal.loads": Call("marshal", "loads", (code,)),
        "types.FunctionType": Call(
            "types", "FunctionType", (Call("marshal", "loads", (code,)), {})
        ),
        "codecs.decode": Call("codecs", "decode", (b"x", "rot13")),
        "pickle.loads": Call("pickle", "loads", (nested,)),
        "_pickle.loads": Call("_pickle", "loads", (nested,)),
        "torch.load": Call("torch.serialization", "load", (str(canary.with_suffix(".pt")),)),
        "torch.hub": Call("torch.hub", "load", ("x/y", "z")),
        "torch._inductor": Call(
            "torch._inductor.codecache", "compile_file", ("x", str(canary), "")
        ),
        "torch.utils.collect_env": Call("torch.utils.collect_env", "run", (shell,)),
        "torch.jit": Call("torch.jit._script", "unpackage_script_module", (None, None, None, None)),
        "numpy.__builtins__": Call("numpy", "__builtins__.__getitem__", ("exec",)),
        "numpy f2py": Call("numpy.f2py.crackfortran", "myeval", (python,)),
        "numpy.load": Call("numpy", "load", (str(canary), None, True)),
        "dotted name": Call("torch._utils", "_rebuild_tensor_v2.__globals__.get", ("warnings",)),
        "dunder of an allowed class": Call("collections", "OrderedDict.__reduce__"),
        "linecache": Call("linecache", "getline", ("/etc/passwd", 1)),
        "shutil.copy": Call("shutil", "copyfile", ("/etc/hostname", str(canary))),
        "webbrowser": Call("webbrowser", "open", (f"file://{canary}",)),
        "logging.config": Call("logging.config", "_resolve", ("os.system",)),
        "asyncio": Call("asyncio.unix_events", "_UnixSubprocessTransport._start", (None, shell)),
        "pip": Call("pip._internal", "main", (["--version"],)),
        "multiprocessing": Call("multiprocessing.util", "spawnv_passfds", (b"touch", [], [])),
        "the loader itself": Call("guided.zoo.nvidia", "_Reader", (b"",)),
    }


def _crafted(canary: Path, write: Call, shell: str) -> dict[str, bytes]:
    """Attacks by form rather than by name."""
    body = dumps(write)[2:-1]
    builtins = dumps(Name("numpy", "core"))[2:-1] + dumps({"load": 1})[2:-1] + b"b"
    run = f"(S'{shell}'\nios\nsystem\n."
    hidden = Net("Generator", attributes={"x": write}, source=f"open({str(canary)!r}, 'w')")
    storage = Call("torch.storage", "_load_from_bytes", (_legacy(dumps(write)),))
    return {
        "protocol 0": f"cos\nsystem\n(S'{shell}'\ntR.".encode(),
        "INST": run.encode(),
        "OBJ": f"(cos\nsystem\nS'{shell}'\no.".encode(),
        "BUILD on a module": dumps({"a": Raw(builtins)}),
        "popped before the result": b"\x80\x04" + body + b"0}.",
        "dict key": dumps(Raw(b"}" + body + b"Ns")),
        "NEWOBJ_EX": b"\x80\x04" + text("subprocess") + text("Popen") + b"\x93)}\x92.",
        "name from the memo": _memo(shell),
        "code after the end": dumps({"a": 1}) + dumps(write),
        "extension registry": b"\x80\x04\x82\x01.",
        "persistent id": b"\x80\x04" + text("os.system") + b"Q.",
        "inside a network": dumps({"G_ema": hidden.call()}),
        "inside a storage": dumps({"G_ema": storage}),
        "inside a reduced state": dumps({"a": Call("collections", "OrderedDict", (), (), write)}),
        "compressed": zlib.compress(dumps(write)),
        "behind a frame": b"\x80\x04\x95" + struct.pack("<Q", len(body) + 1) + body + b".",
    }


def _memo(shell: str) -> bytes:
    """``os`` and ``system`` put into the memo first and fetched for STACK_GLOBAL."""
    stored = text("system") + b"\x94" + text("os") + b"\x94" + b"00"
    return b"\x80\x04" + stored + b"h\x01h\x00\x93(" + text(shell) + b"tR."


def _legacy(pickled: bytes) -> bytes:
    """A pickle in the place of the object in torch's old file format."""
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
    system = pickle.dumps({"protocol_version": 1001, "little_endian": True}, 2)
    return magic + pickle.dumps(1001, 2) + system + pickled + pickle.dumps([], 2)
