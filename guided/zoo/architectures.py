"""open_clip's architectures and pretrained tags, read from its files without importing torch."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from guided.errors import UsageError, nearest
from guided.zoo.hub import snapshot
from guided.zoo.resolve import names

#: What a repository of open_clip may call its weights, the first that is there is taken.
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors",
           "model.safetensors", "open_clip_pytorch_model.bin")  # fmt: skip


@cache
def _folder() -> Path:
    spec = importlib.util.find_spec("open_clip")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0])


@cache
def architectures() -> tuple[str, ...]:
    """The names of open_clip's architectures, sorted."""
    return tuple(sorted(path.stem for path in (_folder() / "model_configs").glob("*.json")))


@cache
def sources() -> Mapping[str, Mapping[str, str]]:
    """Where the weights of ARCHITECTURE/TAG come from: ``hf_hub`` (a repository, or a file in one)
    or ``url``, by that name.  What is not written as a plain table in open_clip is left out.
    """
    tree = ast.parse((_folder() / "pretrained.py").read_text(encoding="utf-8"))
    tables: dict[str, dict[str, dict[str, str]]] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            if isinstance(node.value, ast.Call):
                tables[node.targets[0].id] = dict(_tags(node.value))
            elif isinstance(node.value, ast.Dict) and node.targets[0].id == "_PRETRAINED":
                return dict(_named(node.value, tables))
    return {}


def _tags(call: ast.Call) -> Iterator[tuple[str, dict[str, str]]]:
    """The entries of ``dict(tag=_pcfg(hf_hub="..."))``."""
    for tag in call.keywords:
        if tag.arg and isinstance(tag.value, ast.Call):
            values = {
                key.arg: key.value.value
                for key in tag.value.keywords
                if key.arg in ("hf_hub", "url")
                and isinstance(key.value, ast.Constant)
                and isinstance(key.value.value, str)
            }
            arguments = [a.value for a in tag.value.args if isinstance(a, ast.Constant)]
            if arguments and isinstance(arguments[0], str):
                values.setdefault("url", arguments[0])
            yield tag.arg, {str(key): value for key, value in values.items()}


def _named(
    table: ast.Dict, known: Mapping[str, Mapping[str, dict[str, str]]]
) -> Iterator[tuple[str, Mapping[str, str]]]:
    for key, value in zip(table.keys, table.values, strict=True):
        if isinstance(value, ast.Call):
            tags: Mapping[str, dict[str, str]] = dict(_tags(value))
        else:
            tags = known.get(value.id, {}) if isinstance(value, ast.Name) else {}
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            for tag, source in tags.items():
                yield f"{key.value}/{tag}", source


def source_of(architecture: str, tag: str) -> Mapping[str, str] | None:
    """Where the weights of a tag come from; None where the tables say nothing of it."""
    name = architecture.removesuffix("-quickgelu")
    plain = tag.lower().replace("-", "_")
    return sources().get(f"{architecture}/{plain}") or sources().get(f"{name}/{plain}")


def cached_weights(source: Mapping[str, str]) -> Path | None:
    """The weight file of a tag in the local caches, where it is there."""
    if place := source.get("hf_hub"):
        repository, _, file = place.rpartition("/")
        wanted = [file.removesuffix(".bin") + ".safetensors", file] if file else list(WEIGHTS)
        folder = snapshot(repository)
        here = [folder / name for name in wanted] if folder is not None else []
        return next((path for path in here if path.is_file()), None)
    if url := source.get("url"):
        path = Path("~/.cache/clip").expanduser() / url.rpartition("/")[2]
        return path if path.is_file() else None
    return None


def unknown_scorer(name: str) -> UsageError:
    """The error for a name that no scorer has, with the nearest one."""
    architecture = name.partition("/")[0]
    known = [*names(), *architectures()]
    return UsageError(
        f"There is no scorer {name!r}; allowed: a model of the zoo, ARCHITECTURE/TAG of "
        "open_clip, hf-hub:OWNER/MODEL or local-dir:FOLDER.",
        hint=nearest(architecture, known) if architecture else "",
    )


def unknown_tag(architecture: str, tag: str) -> UsageError:
    """The error for weights that open_clip does not list for an architecture."""
    known = [name.partition("/")[2] for name in sources() if name.startswith(f"{architecture}/")]
    return UsageError(
        f"The architecture {architecture!r} has no weights called {tag!r}.",
        hint=nearest(tag, known) if known else "open_clip lists no weights for it.",
    )
