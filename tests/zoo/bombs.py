"""Small files that would take a reader seconds to centuries, or gigabytes."""

from __future__ import annotations

import io
import struct
import zipfile

START = b"\x80\x02"


def long(value: int) -> bytes:
    return b"\x8a\x0a" + value.to_bytes(10, "little", signed=True)


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def pickles() -> dict[str, bytes]:
    """Pickles that would take a reader seconds to centuries, or gigabytes."""
    ordered = named("collections", "OrderedDict")
    table = b"}(" + b"".join(b"J" + struct.pack("<i", i) + b"N" for i in range(40_000)) + b"u"
    text = b"X" + struct.pack("<I", 1 << 20) + b"a" * (1 << 20)
    encode = named("_codecs", "encode")
    body = {
        "a key of 2 ** 60 parts": b"}" + b"K\x01\x85" + b"2\x86" * 60 + b"K\x01s",
        "a set of them": b"\x8f(" + b"K\x01\x85" + b"2\x86" * 60 + b"\x90",
        "pairs of them": ordered + b"](K\x01\x85" + b"2\x86" * 60 + b"N\x86e\x85R",
        "a deep key": b"}" + b")" + b"\x85" * 200_000 + b"Ns",
        "equal hashes": b"}("
        + b"".join(long(i * (2**61 - 1)) + b"N" for i in range(50_000))
        + b"u",
        "pushes and pops": b"N0" * 3_000_000 + b"}",
        "sets": b"\x8f" * 1_000_000,
        "tuples": b")" + b"\x85" * 1_000_000,
        "names": (ordered + b"0") * 200_000 + b"}",
        "a table copied": table + b"q\x000" + (ordered + b"h\x00\x85R0") * 20_000 + b"}",
        "a state copied": table + b"q\x000" + ordered + b")R" + b"h\x00b" * 20_000,
        "a text copied": text + b"q\x000" + (encode + b"h\x00\x85R0") * 5000 + b"}",
        "more bytes than there are": b"\x8e" + struct.pack("<Q", 1 << 40),
        "more text than there is": b"X\xff\xff\xff\x7f",
        "a frame": b"\x95" + struct.pack("<Q", 1 << 60) + b"}",
        "a long number": b"\x8b" + struct.pack("<i", 1 << 20) + b"\1" * (1 << 20),
        "a memo": b"}r\xff\xff\xff\x7f",
    }
    return {name: START + code + b"." for name, code in body.items()}


def zipped(entries: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as made:
        for name, data in entries.items():
            made.writestr(f"archive/{name}", data)
    return file.getvalue()


def storage(count: int, key: str = "0") -> bytes:
    texts = [b"X" + struct.pack("<I", len(t)) + t.encode() for t in ("storage", key, "cpu")]
    kind = named("torch", "FloatStorage")
    return (
        b"("
        + texts[0]
        + kind
        + texts[1]
        + texts[2]
        + b"\x8a\x07"
        + count.to_bytes(7, "little")
        + b"tQ"
    )


def view(count: int, shape: int) -> bytes:
    """A tensor of ``shape`` elements, all the first of a storage of ``count``."""
    size = b"\x8a\x07" + shape.to_bytes(7, "little") + b"\x85K\x00\x85"
    rebuild = named("torch._utils", "_rebuild_tensor_v2")
    return (
        rebuild
        + b"("
        + storage(count)
        + b"K\x00"
        + size
        + b"\x89"
        + named("collections", "OrderedDict")
        + b")RtR"
    )


def items(*values: bytes) -> bytes:
    return START + b"](" + b"".join(values) + b"e."


def archives() -> dict[str, bytes]:
    """Torch archives that claim more than they are."""
    squeezed = zipfile.ZIP_DEFLATED
    one = {"data/0": bytes(4)}
    four = view(1 << 20, 1 << 20)
    sound = zipped({"data.pkl": items(view(1, 1)), **one})
    directory = sound.index(b"PK\x01\x02")
    end = sound.index(b"PK\x05\x06")
    twin = bytearray(sound)
    second = sound.index(b"PK\x01\x02", directory + 4)
    twin[second + 42 : second + 46] = sound[directory + 42 : directory + 46]
    many = bytearray(sound)
    many[end + 8 : end + 12] = b"\xff\xff\xff\xff"
    return {
        "a compressed table": zipped({"data.pkl": START + b"N0" * (8 << 20) + b"}."}, squeezed),
        "compressed zeros": zipped({"data.pkl": items(four), "data/0": bytes(4 << 20)}, squeezed),
        "a storage of 4 TiB": zipped({"data.pkl": items(view(1 << 40, 1)), **one}),
        "a storage that is not there": zipped({"data.pkl": items(view(1, 1))}),
        "a view of 4 TiB": zipped({"data.pkl": items(view(1, 1 << 40)), **one}),
        "views of 40 GB": zipped({"data.pkl": items(four * 10_000), "data/0": bytes(4 << 20)}),
        "an empty table": zipped({"version": b"3"}),
        "entries that overlap": bytes(twin),
        "entries that are not there": bytes(many),
        "a storage made by a call": zipped(
            {"data.pkl": items(named("torch.storage", "UntypedStorage") + long(1 << 40) + b"\x85R")}
        ),
        "a tensor made by a call": zipped(
            {"data.pkl": items(named("torch", "FloatTensor") + long(1 << 40) + b"\x85R")}
        ),
        "bytes made by a call": zipped(
            {"data.pkl": items(named("builtins", "bytearray") + long(1 << 40) + b"\x85R")}
        ),
        "a call in a call": zipped(
            {"data.pkl": items(
                named("torch._tensor", "_rebuild_from_type_v2") + b"("
                + named("builtins", "bytearray") + named("torch", "Tensor")
                + long(1 << 40) + b"\x85NtR"
            )}
        ),
    }  # fmt: skip


def older(pickled: bytes, keys: bytes = b"]", data: bytes = b"") -> bytes:
    """The form of torch files before archives."""
    magic = long(0x1950A86A20F9469CFC6C)
    return (
        b"".join(START + part + b"." for part in (magic, b"M\xe9\x03", b"}"))
        + pickled
        + (START + keys + b"." + data)
    )


def arrays() -> dict[str, bytes]:
    def array(header: str, data: bytes = b"") -> bytes:
        raw = header.encode()
        return b"\x93NUMPY\x01\0" + struct.pack("<H", len(raw)) + raw + data

    plain = "{'descr': '<f4', 'fortran_order': %s, 'shape': %s}"
    return {
        "4 TiB": array(plain % (False, (1 << 40,))),
        "4 TiB in columns": array(plain % (True, (1 << 20, 1 << 20))),
        "many axes": array(plain % (False, (2,) * 60)),
        "negative": array(plain % (False, (-1, -4)), bytes(16)),
        "too short": array(plain % (False, (3,)), bytes(8)),
        "too long": array(plain % (False, (3,)), bytes(16)),
        "wide text": array("{'descr': '<U1000000000', 'fortran_order': False, 'shape': (1,)}"),
        "a deep header": array("(" * 9000),
        "a header of its own": array("__import__('os').getcwd()"),
        "a header of 4 GB": b"\x93NUMPY\x02\0\xff\xff\xff\xff",
        "no array": b"\x93NUMPY\x09\0",
    }


def refusals() -> dict[str, bytes]:
    """Every file by name; none may be read."""
    files = {f"network {name}.pkl": data for name, data in pickles().items()}
    files |= {f"table {name}.pt": zipped({"data.pkl": data}) for name, data in pickles().items()}
    files |= {f"older {name}.pth": older(data) for name, data in pickles().items()}
    files |= {f"archive {name}.ckpt": data for name, data in archives().items()}
    files |= {f"array {name}.npy": data for name, data in arrays().items()}
    files["storage.bin"] = older(START + storage(1 << 40) + b".", b"](X\x01\0\0\x000e", bytes(16))
    files["header.safetensors"] = struct.pack("<Q", 1 << 24) + b"[" * (1 << 24)
    values = b'{"a":[' + b"[]," * (4 << 20) + b"[]]}"
    files["values.safetensors"] = struct.pack("<Q", len(values)) + values
    return files
