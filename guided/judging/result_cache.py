"""What a judge's run has made so far, kept in a folder, so that a run that stopped goes on."""

from __future__ import annotations

import hashlib
import io
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from guided.core.files import make_folder, write_bytes
from guided.core.images import to_images, to_tensor
from guided.core.reading import parse_json
from guided.zoo.checksums import digest


class TimeBudgetSpent(Exception):
    """The minutes of this run are over."""


def short(value: Any) -> str:
    """A few letters that stand for a value."""
    told = json.dumps(value, sort_keys=True, default=list).encode()
    return hashlib.sha256(told).hexdigest()[:10]


def digest_of(folder: Path) -> str:
    """What tells a model's folder from others: its weights and settings, by content."""
    files = sorted(f for f in folder.rglob("*") if f.suffix in (".json", ".safetensors"))
    return short([[str(file.relative_to(folder)), digest(file)] for file in files])


@dataclass(frozen=True)
class ResultCache:
    """A folder of results by name, made once each; a name should tell all that they depend on.

    Past ``end`` (of ``time.monotonic``) nothing more is made.
    """

    folder: Path
    end: float = math.inf

    @classmethod
    def of(cls, folder: Path, minutes: float = 0.0) -> ResultCache:
        """What is in a folder, and what can be made in so many minutes; 0: no limit."""
        return cls(folder, time.monotonic() + 60 * minutes if minutes else math.inf)

    def json(self, name: str, make: Callable[[], Any], said: str = "") -> Any:
        """Plain data.

        Raises:
            OutOfTime: it is not here, and there is no time to make it; ``said`` says so.
        """
        return parse_json(
            self._bytes(name, lambda: json.dumps(make()).encode(), said), constants=True
        )

    def tensors(self, name: str, make: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Tensors by name, on the CPU; raises as ``json``."""

        def made() -> bytes:
            content: bytes = save_tensors({k: v.contiguous().cpu() for k, v in make().items()})
            return content

        found: dict[str, Tensor] = load_tensors(self._bytes(name, made))
        return found

    def images(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        """Square pictures [n, 3, S, S] in [0, 1], rounded to 8 bits as a saved picture is; raises
        as ``json``.
        """

        def made() -> bytes:
            line = torch.cat(list(make().float().cpu()), 2)
            content = io.BytesIO()
            to_images(line[None])[0].save(content, "PNG")
            return content.getvalue()

        with Image.open(io.BytesIO(self._bytes(name, made))) as image:
            line = to_tensor(image.convert("RGB"))[0]
        return torch.stack(list(torch.split(line, line.shape[1], 2)))

    def _bytes(self, name: str, make: Callable[[], bytes], said: str = "") -> bytes:
        file = self.folder / name
        if file.is_file():
            return file.read_bytes()
        if time.monotonic() > self.end:
            raise TimeBudgetSpent(said or f"stopped before {name}; run again to go on")
        content = make()
        make_folder(file.parent)
        write_bytes(file, content)
        return content
