"""Model references: what a user may write where a model is wanted, and the files it leads to.

One grammar for every role and every verb:

    clip, gpt2                    a card: shipped, added by the user, or public
    OWNER/NAME[@REVISION]         a repository in the hub's local cache (also hf-hub:OWNER/NAME)
    FOLDER, local-dir:FOLDER      a folder; a repository folder of the hub's cache is its snapshot
    FILE.safetensors, FILE.pt     one weight file
    ARCHITECTURE/TAG              pretrained weights that open_clip knows (scorers, judges)
    an object                     the user's own model, in Python

Nothing heavy is imported, and no weight file is read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from guided.errors import CannotDo, MissingWeights, UsageError, nearest
from guided.zoo.architectures import (
    architectures,
    cached_weights,
    source_of,
    unknown_scorer,
    unknown_tag,
)
from guided.zoo.cards import CARD_FILE, Card, read_card
from guided.zoo.checksums import digest
from guided.zoo.folders import hub_folder, settle_network
from guided.zoo.gate import snapshot_of
from guided.zoo.hub import download_repository, snapshot
from guided.zoo.resolve import card_of, find, known, locate, missing, names

Kind = Literal["card", "hub", "folder", "file", "open_clip", "object"]

WEIGHTS = (".pt", ".pth", ".ckpt", ".pkl", ".safetensors", ".bin", ".npy")
"""How weight files end."""
_FOREIGN = (".gguf", ".onnx")
"""Weight files of other programs, which no role takes."""
_PATHS = ("/", "./", "../", "~")
"""How paths begin that can be nothing else."""
CLIPS = ("scorer", "judge")
SCORER_HELP = "ARCHITECTURE/TAG, hf-hub:OWNER/MODEL, a folder or a shipped name"
#: The roles whose model is a folder, with the file in it by which it is known.
FOLDERS = {
    "denoiser": "model_index.json", "judge": "open_clip_config.json", "language": "config.json",
    "latent_scorer": "config.json", "prior": "config.json", "reader": "config.json",
    "scorer": "open_clip_config.json", "vae": "vae/config.json",
}  # fmt: skip
LOCAL, HUB, OBJECT = "local-dir:", "hf-hub:", "object:"
_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_REPOSITORY = re.compile(rf"({_PART}/{_PART})(?:@([A-Za-z0-9][A-Za-z0-9._/-]{{0,127}}))?")
_TITLES = {"text_gan": "text GAN"}


@dataclass(frozen=True)
class Located:
    """The files of a model on this computer.

    ``folder`` holds them all, ``file`` is the main weight file (None where there are several, or
    where only a library knows which); ``card`` is the model's card, if it has one.
    """

    folder: Path
    file: Path | None = None
    card: Card | None = None

    @property
    def main(self) -> Path:
        """The weight file, or the folder where there are several."""
        return self.file or self.folder

    @cached_property
    def sha256(self) -> str:
        """The sha256 of the card's main file, of the weight file or of the folder's index."""
        if self.card is not None and self.card.sha256:
            return self.card.sha256
        main = self.file or self.folder / FOLDERS["denoiser"]
        return digest(main) if main.is_file() else ""


@dataclass(frozen=True)
class Reference:
    """A model as it was named for a role: ``text`` is what was written.

    ``path`` is the folder or file; ``repository`` and ``revision`` are the hub's; an object is in
    ``given``.
    """

    kind: Kind
    text: str
    role: str = ""
    path: Path | None = None
    repository: str = ""
    revision: str = "main"
    given: Any = None

    @classmethod
    def parse(cls, given: Any, role: str = "") -> Reference:
        """The reference in a text (or an object) for a role.

        Raises:
            UsageError: a text that can be none.
        """
        if not isinstance(given, (str, Path)):
            return cls("object", f"{OBJECT}{type(given).__name__}", role, given=given)
        text = str(given)
        if role == "perceptual" and _is_clip(text):
            role = "scorer"
        if text.startswith(OBJECT):
            return cls("object", text, role)
        if text.startswith(LOCAL):
            return cls("folder", text, role, path=Path(text.removeprefix(LOCAL)).expanduser())
        if text.startswith(HUB):
            return _of_hub(text, text.removeprefix(HUB), role)
        architecture, slash, tag = text.partition("/")
        if role in CLIPS and architecture in architectures() and not known(text):
            path = Path(tag).expanduser() if Path(tag).suffix in WEIGHTS else None
            return cls("open_clip", text, role, path=path)
        path = Path(text).expanduser()
        if path.suffix in (*WEIGHTS, *_FOREIGN) and not known(text):
            return cls("file", text, role, path=path)
        if text and not known(text) and "\0" not in text and len(text) < 4096 and path.is_dir():
            return cls("folder", text, role, path=path)
        if slash and text.startswith(_PATHS):
            return cls("folder", text, role, path=path)
        if slash and not known(text):
            return _of_hub(text, text, role)
        return cls("card", text, role)

    @property
    def library_name(self) -> str:
        """The name by which the scorers' and language models' loaders know it."""
        if self.kind == "folder" and not self.text.startswith(LOCAL):
            return f"{LOCAL}{self.path}"
        if self.kind == "file":
            return f"{LOCAL}{self.locate().folder}"
        if self.kind == "hub" and self.revision != "main":
            return f"{LOCAL}{self.locate().folder}"
        if self.kind == "hub":
            return f"{HUB}{self.repository}" if self.role in CLIPS else self.repository
        return self.text

    def locate(self, *, online: bool = False, whole: bool = False) -> Located:
        """Where its files are; with ``online`` what the hub has is fetched first.

        ``whole``: the files of a card are also compared with its sums, which reads them.

        Raises:
            MissingWeights: not on this computer.
            CorruptWeights: ``whole``, and not what the card says.
            CannotDo: a model made for another role, or an object, which has no files.
            UsageError: no name of a model, or a file where only a folder will do.
        """
        settle_network(online=online)
        if self.kind == "card":
            return self._by_card(online=online, whole=whole)
        if self.kind == "folder":
            assert self.path is not None
            if not self.path.is_dir():
                raise MissingWeights(f"There is no folder {self.path}.", hint="Check the path.")
            return self._in_folder(snapshot_of(self.path))
        if self.kind == "file":
            return self._one_file()
        if self.kind == "open_clip":
            return self._of_open_clip()
        if self.kind == "hub":
            folder = snapshot(self.repository, self.revision)
            if folder is None and online:
                folder = download_repository(self.repository, self.revision)
            if folder is None:
                raise self._not_cached()
            return self._in_folder(folder)
        raise CannotDo(f"{self.text} is an object, which has no files.")

    def _by_card(self, *, online: bool, whole: bool) -> Located:
        if self.role in CLIPS and not known(self.text) and "/" not in self.text:
            raise unknown_scorer(self.text)
        get = find if whole or online else locate
        kwargs = {"online": online} if get is find else {}
        found = get(self.text, self.role or None, **kwargs)
        return Located(found.folder, found.path, found.card)

    def _in_folder(self, folder: Path) -> Located:
        """The model in a folder: all of it, or the one weight file that its role takes."""
        if self.role in FOLDERS or not self.role:
            return Located(folder)
        if (folder / CARD_FILE).is_file():
            card = read_card(folder / CARD_FILE)
            return Located(folder, folder / card.file)
        files = sorted(
            p
            for p in folder.iterdir()
            if p.suffix in WEIGHTS and p.name[:2] != "._" and p.is_file()
        )
        if not files:
            raise MissingWeights(
                f"There is no weight file in the folder {folder}.",
                hint=f"Weight files end in {', '.join(WEIGHTS)}.",
            )
        if len(files) > 1:
            raise UsageError(
                f"The folder {folder} holds {len(files)} weight files.",
                hint=f"Name one: {', '.join(path.name for path in files[:6])}.",
            )
        return Located(folder, files[0])

    def _one_file(self) -> Located:
        assert self.path is not None
        if not self.path.is_file():
            title = _TITLES.get(self.role, self.role)
            raise MissingWeights(f"There is no {title} file {self.path}.", hint="Check the path.")
        mark = FOLDERS.get(self.role)
        if mark and not (self.path.parent / mark).is_file():
            title = _TITLES.get(self.role, self.role)
            raise UsageError(
                f"A {title} is a folder with {mark}, not the file {self.path} alone.",
                hint=self._folder_of_file(),
            )
        if self.path.suffix in _FOREIGN:
            raise UsageError(
                f"{self.path} is of a kind that is not read.",
                hint=f"Weight files end in {', '.join(WEIGHTS)}.",
            )
        return Located(self.path.parent, self.path)

    def _folder_of_file(self) -> str:
        """What to do where a role takes a folder, and a single file was named."""
        if self.role in CLIPS:
            return "Name such a folder or ARCHITECTURE/FILE."
        if self.role == "denoiser" and str(self.path).endswith(".safetensors"):
            return (
                "diffusers makes the folder of it: StableDiffusionPipeline.from_single_file(FILE)"
                ".save_pretrained(FOLDER), of SDXL StableDiffusionXLPipeline. Then name FOLDER."
            )
        if self.role == "denoiser":
            return "Get the .safetensors file of the same model, or its folder, and name that."
        return "Name such a folder."

    def _of_open_clip(self) -> Located:
        """The weights of ARCHITECTURE/TAG or ARCHITECTURE/FILE."""
        if self.path is not None and self.path.is_file():
            return Located(self.path.parent, self.path)
        architecture, _, tag = self.text.partition("/")
        source = source_of(architecture, tag)
        if source is None:
            raise unknown_tag(architecture, tag)
        file = cached_weights(source)
        if file is None:
            place = source.get("hf_hub") or source.get("url", "")
            name = place.rpartition("/")[2] or "open_clip_model.safetensors"
            raise MissingWeights(
                f"The {self.role} {self.text!r} needs the file {name}, which is not in "
                f"{hub_folder()}; it comes from {place}.",
                hint=f"Run: guided models get {self.text} --online",
            )
        return Located(file.parent, file)

    def _not_cached(self) -> MissingWeights | UsageError:
        architecture = self.repository.partition("/")[0]
        if self.role in CLIPS and not self.text.startswith(HUB):
            close = nearest(architecture, architectures())
            if close.startswith("Did you mean"):
                return unknown_scorer(self.text)
        close = nearest(self.text, names())
        title = _TITLES.get(self.role, self.role) or "model"
        at = "" if self.revision == "main" else f" at {self.revision}"
        return MissingWeights(
            f"The {title} {self.repository!r}{at} is not in {hub_folder()}; it comes from "
            f"https://huggingface.co/{self.repository}.",
            hint=f"Run: guided models get {self.text} --online"
            + (f" ({close})" if close.startswith("Did you mean") else ""),
        )


def _is_clip(text: str) -> bool:
    """Whether what is to compare images is a CLIP, whose trunk does it, and no LPIPS file."""
    card = card_of(text)
    if card is not None:
        return card.kind == "open_clip"
    return Path(text).suffix not in WEIGHTS and ("/" in text or text.startswith((LOCAL, HUB)))


def _of_hub(text: str, place: str, role: str) -> Reference:
    matched = _REPOSITORY.fullmatch(place)
    if matched is None or ".." in place:
        raise UsageError(
            f"{place[:80]!r} cannot be the name of a repository.",
            hint="Repositories are named OWNER/NAME or OWNER/NAME@REVISION; a folder is "
            "local-dir:FOLDER.",
        )
    return Reference("hub", text, role, repository=matched[1], revision=matched[2] or "main")


def unknown(reference: Reference) -> MissingWeights | None:
    """The error for a card's name that nothing has; None for names of models that could be got."""
    if reference.kind != "card" or known(reference.text):
        return None
    return missing(reference.text, reference.role or None)
