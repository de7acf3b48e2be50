"""The models an edit runs with, by role: an option's name or file, else the kit's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guided.errors import CannotDo, CorruptWeights, MissingWeights
from guided.tasks._scoring import pick_scorer
from guided.tasks.base import Workbench

if TYPE_CHECKING:
    from torch import Tensor

    from guided.generators.e4e import StyleInverter
    from guided.generators.stylegan2 import Overshoot, StyleGan2
    from guided.nets.e4e import Reading
    from guided.scorers.clip import ClipScorer
    from guided.scorers.trunk import Net, TrunkDistance

WEIGHTS = (".pt", ".pth", ".pkl", ".safetensors", ".bin")


@dataclass
class EditModels:
    """Models by role, each loaded at its first use; ``named`` are the options that name one."""

    bench: Workbench
    named: Mapping[str, str]
    overshoot: Overshoot = "clip"
    _kinds: dict[str, str] = field(default_factory=dict)
    _here: dict[str, bool] = field(default_factory=dict)

    def file(self, role: str) -> Path | None:
        """The weight file in that role; None where neither an option nor the kit names one.

        Raises:
            MissingWeights: named, but not on this computer.
        """
        wanted = self.named.get(role) or self.bench.kit.get(role, "")
        if not wanted:
            return None
        path = Path(wanted).expanduser()
        if path.suffix in WEIGHTS:
            if not path.is_file():
                raise MissingWeights(f"There is no {role} file {path}.", hint="Check the path.")
            self.bench.notes[path.name] = _sha256(path)
            return path
        from guided.zoo import find

        found = find(wanted, role, online=self.bench.online)
        self._kinds[role] = found.card.kind
        self.bench.notes[wanted] = found.sha256
        return found.path

    def need(self, role: str) -> Path:
        """As ``file``, where there is no way without.

        Raises:
            CannotDo: nothing is named for that role.
            MissingWeights: named, but not on this computer.
        """
        path = self.file(role)
        if path is None:
            raise CannotDo(
                f"No {role} is named.", hint=f"Give --{role} FILE, or a kit that has one."
            )
        return path

    @cached_property
    def generator(self) -> StyleGan2:
        """The generator."""
        from guided.generators.stylegan2 import load_stylegan2

        path = self.need("generator")
        return load_stylegan2(path, self.bench.device, overshoot=self.overshoot)

    @cached_property
    def scorer(self) -> ClipScorer:
        """The CLIP that guides."""
        return pick_scorer(self.bench, self.named.get("scorer", ""))

    @cached_property
    def inverter(self) -> StyleInverter:
        """The encoder that finds a picture's code."""
        from guided.generators.e4e import load_inverter

        path = self.need("inverter")
        reading: Reading = "psp" if self._kinds.get("inverter") == "psp" else "e4e"
        average = self.generator.average
        return load_inverter(path, average, self.bench.device, reading=reading)

    @cached_property
    def identity(self) -> Any:
        """The embedder of who it is: ``embed_images`` to unit vectors."""
        from guided.scorers.identity import load_identity

        return load_identity(self.need("identity"), self.bench.device)

    @cached_property
    def perceptual(self) -> TrunkDistance:
        """The distance by the trunk of the CLIP that is named, or LPIPS where its file is.

        Without a name it is the scorer's own trunk.
        """
        from guided.scorers.trunk import clip_trunk, lpips_distance

        wanted = self.named.get("perceptual") or self.bench.kit.get("perceptual", "")
        guiding = self.named.get("scorer") or self.bench.kit.get("scorer", "")
        if wanted in ("", guiding):
            return clip_trunk(self.scorer)
        if self._is_clip(wanted):
            return clip_trunk(pick_scorer(self.bench, wanted))
        path = self.need("perceptual")
        net: Net = "alex" if "alex" in path.name else "squeeze" if "squeeze" in path.name else "vgg"
        return lpips_distance(path, net, self.bench.device)

    @cached_property
    def directions(self) -> Tensor:
        """What each channel of the generator does under the scorer: [channels, D] float32.

        Raises:
            CorruptWeights: a file of another kind.
        """
        import torch

        from guided.zoo.arrays import read_array
        from guided.zoo.packing import load_weights

        wanted = Path(self.named.get("directions", "")).expanduser()
        if wanted.suffix == ".npy":
            found = torch.from_numpy(read_array(wanted))
        else:
            wanted = self.need("directions")
            found = load_weights(wanted).get("relevance", torch.empty(0))
        if found.ndim != 2:
            raise CorruptWeights(
                f"{wanted} is {list(found.shape)}; channel statistics are [channels, D]."
            )
        return found.float().to(self.bench.device.torch)

    def _is_clip(self, wanted: str) -> bool:
        """Whether that name is an open_clip model's, not a file's or another network's."""
        if Path(wanted).suffix in WEIGHTS:
            return False
        if wanted.startswith("local-dir:"):
            return True
        from guided.zoo import find

        return find(wanted, online=self.bench.online).card.kind == "open_clip"

    def here(self, role: str) -> bool:
        """Whether there is a model for that role on this computer; looked for once."""
        if role not in self._here:
            try:
                self._here[role] = self.file(role) is not None
            except MissingWeights:
                self._here[role] = False
        return self._here[role]

    def by_role(self, roles: Mapping[str, bool]) -> dict[str, Any]:
        """The models a scene offers to losses: those roles whose flag is set."""
        return {role: getattr(self, role) for role, wanted in roles.items() if wanted}


def _sha256(path: Path) -> str:
    from guided.zoo.manifest import digest

    return digest(path)
