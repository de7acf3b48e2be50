"""Settings that carry code or locations are refused by name before a library sees them."""

from __future__ import annotations

import contextlib
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guided.errors import CorruptWeights, MissingWeights, UnsafeWeights
from guided.zoo import gate
from guided.zoo.gate import inspect, leaves_folder, snapshot_of

PLAIN: dict[str, dict[str, Any]] = {
    "config.json": {
        "architectures": ["CLIPTextModel"], "_name_or_path": "openai/clip-vit-large-patch14",
        "auto_map": None, "attn_implementation": "sdpa", "hidden_size": 8, "dtype": "float32",
        "id2label": {"0": "a/b"}, "tokenizer_class": "XLMRobertaTokenizer",
    },
    "open_clip_config.json": {
        "model_cfg": {
            "embed_dim": 8, "vision_cfg": {"timm_model_name": "vit_base_patch16_siglip_224"},
            "text_cfg": {
                "hf_tokenizer_name": "timm/ViT-B-16-SigLIP", "hf_model_name": "roberta-base",
                "tokenizer_kwargs": {"clean": "canonicalize", "strip_sep_token": True},
            },
        },
        "preprocess_cfg": {"mean": [0.5, 0.5, 0.5]},
    },
    "tokenizer_config.json": {
        "tokenizer_class": "CLIPTokenizer", "name_or_path": "/home/someone/clip",
        "special_tokens_map_file": "/home/someone/special_tokens_map.json", "tokenizer_file": None,
        "chat_template": "{{ 'a://b' }}", "fast_tokenizer_files": ["tokenizer.4.json"],
    },
    "tokenizer.json": {
        "added_tokens": [{"id": 0, "content": "trust_remote_code"}],
        "model": {"type": "BPE", "vocab": {"auto_map": 7, "trust_remote_code": 8}, "merges": []},
    },
    "model.safetensors.index.json": {"weight_map": {"a.weight": "model-00001-of-2.safetensors"}},
    "model_index.json": {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "X"]},
    "scheduler_config.json": {"_class_name": "DDIMScheduler", "beta_start": 0.1},
}  # fmt: skip


def write(folder: Path, changes: dict[str, dict[str, Any]] | None = None) -> Path:
    """A folder of settings, one file of each kind."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in {**PLAIN, **(changes or {})}.items():
        (folder / name).write_text(json.dumps(table), encoding="utf-8")
    return folder


def test_data_passes_unchanged(tmp_path: Path) -> None:
    folder = write(tmp_path / "model")
    (folder / "modeling.py").write_text("raise SystemExit('run')")
    (folder / "vocab.json").write_text(json.dumps({"auto_map": 1, "custom_pipeline": 2}))
    (folder / "labels.json").write_text(json.dumps({"auto_map": "somebody's own file"}))
    (folder / "._config.json").write_bytes(b"\x00\x05\x16\x07Mac OS X")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert inspect(folder) == folder.resolve()
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("key", sorted(gate.CODE_KEYS))
@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "scheduler_config.json"])
def test_keys_that_carry_code_are_refused_by_name(tmp_path: Path, key: str, file: str) -> None:
    for value in ("own.Own", {"AutoTokenizer": ["own.Own", None]}, True, 1, ["own"], "false"):
        folder = write(tmp_path, {file: {**PLAIN[file], "deep": [{"er": {key: value}}]}})
        with pytest.raises(UnsafeWeights, match=re.escape(f"{file} has deep[0].er.{key} = ")):
            inspect(folder)
    for nothing in (None, False, "", {}, []):
        inspect(write(tmp_path, {file: {**PLAIN[file], key: nothing}}))


REFUSED: list[tuple[str, tuple[str, ...], Any]] = [
    ("config.json", ("attn_implementation",), "someone/kernel"),
    ("config.json", ("text_config", "_attn_implementation"), {"text_config": "a/b@v1:fn"}),
    ("config.json", ("experts_implementation",), "someone/kernel"),
    ("config.json", ("transformers_weights",), "../other.safetensors"),
    ("config.json", ("configuration_files",), ["/etc/config.4.0.0.json"]),
    ("config.json", ("tokenizer_class",), "OwnTokenizer"),
    ("config.json", ("text_config", "quantization_config"), {"quant_method": "gptq"}),
    ("tokenizer_config.json", ("tokenizer_class",), "AutoModel"),
    ("tokenizer_config.json", ("tokenizer_class",), ["own", "OwnTokenizer"]),
    ("tokenizer_config.json", ("vocab_file",), "/etc/passwd"),
    ("tokenizer_config.json", ("merges_file",), "..\\merges.txt"),
    ("tokenizer_config.json", ("tokenizer_file",), "~/tokenizer.json"),
    ("tokenizer_config.json", ("spm_file",), "https://a.b/c"),
    ("tokenizer_config.json", ("fast_tokenizer_files",), ["../tokenizer.4.json"]),
    ("open_clip_config.json", ("model_cfg", "text_cfg", "hf_model_name"), "someone/else"),
    ("open_clip_config.json", ("model_cfg", "text_cfg", "hf_model_name"), {"roberta-base": 1}),
    ("open_clip_config.json", ("model_cfg", "text_cfg", "hf_tokenizer_name"), "../tokenizer"),
    ("open_clip_config.json", ("model_cfg", "text_cfg", "hf_tokenizer_name"), "/tokenizer"),
    ("open_clip_config.json", ("model_cfg", "vision_cfg", "timm_model_name"), "hf-hub:a/b"),
    ("open_clip_config.json", ("model_cfg", "vision_cfg", "timm_model_name"), "local-dir:x"),
    ("open_clip_config.json", ("model_cfg", "vision_cfg", "timm_model_name"), "a/b"),
    ("model_index.json", ("_class_name",), ["own", "OwnPipeline"]),
    ("model.safetensors.index.json", ("weight_map",), {"a": "../../secret.safetensors"}),
    ("model.safetensors.index.json", ("weight_map",), {"a": "C:\\secret.safetensors"}),
    *(
        ("open_clip_config.json", ("model_cfg", "text_cfg", "tokenizer_kwargs", argument), "x")
        for argument in sorted({*gate.LOADER_ARGUMENTS, "vocab_file", "own_file"})
    ),
]


@pytest.mark.parametrize(("file", "keys", "value"), REFUSED)
def test_locations_and_classes_are_refused_by_name(
    tmp_path: Path, file: str, keys: tuple[str, ...], value: object
) -> None:
    table = json.loads(json.dumps(PLAIN[file]))
    inside = table
    for key in keys[:-1]:
        inside = inside.setdefault(key, {})
    inside[keys[-1]] = value
    with pytest.raises(UnsafeWeights) as caught:
        inspect(write(tmp_path, {file: table}))
    assert f"{tmp_path / file} has {'.'.join(keys)} = " in caught.value.message
    assert len(str(caught.value)) < 2048
    assert caught.value.exit_status == 1


def test_only_the_named_parts_of_a_folder_are_read(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path / "unet", {"config.json": {"auto_map": "own.Own"}})
    inspect(tmp_path, ("vae", "scheduler"))
    with pytest.raises(UnsafeWeights, match=r"unet/config\.json has auto_map"):
        inspect(tmp_path, ("vae", "unet"))


def test_what_leads_out_of_a_folder() -> None:
    for inside in ("a", "a.json", "a/b", "a..b", "..a", "a-00001-of-00002.safetensors", ""):
        assert not leaves_folder(inside)
    for outside in (
        "/a",
        "..",
        "a/../b",
        "a\\..\\b",
        "~/a",
        "C:\\a",
        "\\\\host\\a",
        "s3://a",
        ".. /a",
    ):
        assert leaves_folder(outside)


def test_links_stay_in_the_folder_or_in_the_hubs_cache(tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text("{}")
    folder = write(tmp_path / "model")
    (folder / "again.json").symlink_to("config.json")
    inspect(folder)
    (folder / "generation_config.json").symlink_to(secret)
    with pytest.raises(UnsafeWeights, match=r"generation_config\.json is a link that leaves"):
        inspect(folder)
    (folder / "generation_config.json").unlink()
    (folder / "unet").symlink_to(tmp_path)
    with pytest.raises(UnsafeWeights, match="unet is a link that leaves"):
        inspect(folder, ("unet",))


def hub_folder(cache: Path, *revisions: str) -> Path:
    """A repository of the hub's cache: one file of its own, one shared by the whole cache."""
    repository = cache / "models--some--clip"
    (repository / "blobs").mkdir(parents=True)
    (repository / "refs").mkdir()
    (cache / "blobs" / "ab").mkdir(parents=True)
    (cache / "blobs" / "ab" / "cd").write_text("{}")
    (repository / "blobs" / "1").write_text("{}")
    (repository / "blobs" / "2").symlink_to("../../blobs/ab/cd")
    for revision in revisions:
        snapshot = repository / "snapshots" / revision
        snapshot.mkdir(parents=True)
        for name, blob in (("config.json", "1"), ("tokenizer_config.json", "2")):
            (snapshot / name).symlink_to(f"../../blobs/{blob}")
    return repository


def test_a_repository_of_the_hubs_cache_is_its_snapshot(tmp_path: Path) -> None:
    repository = hub_folder(tmp_path / "one", "abc")
    assert inspect(repository) == repository.resolve() / "snapshots" / "abc"
    repository = hub_folder(tmp_path / "two", "abc", "def")
    with pytest.raises(MissingWeights, match="2 snapshots") as caught:
        snapshot_of(repository)
    assert str(repository / "snapshots") in caught.value.hint
    (repository / "refs" / "main").write_text("def")
    assert inspect(repository).name == "def"
    (repository / "blobs" / "1").write_text(json.dumps({"auto_map": "own.Own"}))
    with pytest.raises(UnsafeWeights, match=r"snapshots/def/config\.json has auto_map"):
        inspect(repository)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"a":' * 100_000, "\xff", "{} {}"])
def test_settings_that_are_no_json(tmp_path: Path, text: str) -> None:
    write(tmp_path)
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(CorruptWeights, match=r"config\.json is not JSON that can be read"):
        inspect(tmp_path)


def test_settings_larger_than_settings_can_be(tmp_path: Path) -> None:
    write(tmp_path)
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(gate._LARGEST + 1)
    with pytest.raises(CorruptWeights, match="larger than 8 MiB"):
        inspect(tmp_path)


def test_the_lists_are_those_of_the_libraries() -> None:
    """Public text towers are those of open_clip's own architectures, and tokenizers exist."""
    import open_clip
    import transformers

    configs = [open_clip.get_model_config(name)["text_cfg"] for name in open_clip.list_models()]
    named = {config.get(key) for config in configs for key in ("hf_model_name",)}
    tokenizers = {config.get("hf_tokenizer_name") for config in configs}
    plain = {name for name in tokenizers - {None} if not name.startswith("timm/")}
    assert named - {None} | plain == gate.PUBLIC_TEXT
    for name in gate.TOKENIZERS:
        assert hasattr(transformers, name) or hasattr(transformers, f"{name}Fast"), name
    for name in open_clip.list_models():
        gate.inspect_table(open_clip.get_model_config(name), name)


# ------------------------------------------------------------------------ fuzzing

POISON: tuple[tuple[str, Any], ...] = (
    ("auto_map", {"AutoModel": "own.Own"}), ("custom_pipeline", "own"), ("trust_remote_code", 1),
    ("custom_pipelines", {"a": {}}), ("hf_model_name", "a/b"), ("_class_name", ["own", "Own"]),
    ("timm_model_name", "hf-hub:a/b"), ("attn_implementation", "a/b"), ("vocab_file", "../a"),
    ("tokenizer_class", "Own"), ("weight_map", {"a": "/b"}), ("quantization_config", {"a": 1}),
    ("processor_auto_map", "own.Own"), ("tokenizer_kwargs", {"subfolder": "a"}),
    ("base_model_name_or_path", "a/b"), ("fast_tokenizer_files", ["tokenizer../../x.json"]),
)  # fmt: skip


def places(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where a table stands in nested ones; tables of tokens are left out."""
    if isinstance(value, dict):
        inner = [p for k, v in value.items() if k not in ("vocab", "added_tokens", "weight_map")
                 for p in places(v, (*path, k))]  # fmt: skip
        return [path, *inner]
    if isinstance(value, list):
        return [p for number, each in enumerate(value) for p in places(each, (*path, number))]
    return []


def poisoned(seed: int) -> tuple[str, str, dict[str, Any]]:
    """A file, a key and the file's table with that key somewhere in it."""
    draw = random.Random(seed)
    file = draw.choice(sorted(PLAIN))
    table = json.loads(json.dumps(PLAIN[file]))
    inside: Any = table
    for step in draw.choice(places(table)):
        inside = inside[step]
    for depth in range(draw.randrange(6)):  # and deeper, in tables and lists of its own
        fresh: dict[str, Any] = {}
        inside[f"more{depth}"] = draw.choice(([fresh], fresh, {"x": [[fresh]]}, [0, fresh]))
        inside = fresh
    key, value = draw.choice(POISON)
    inside[key] = value
    return file, key, table


def hunt(tmp_path: Path, seeds: range, look: Callable[[Path], object]) -> None:
    """Every poisoned folder is refused by the name of the file and the key."""
    write(tmp_path)
    for seed in seeds:
        file, key, table = poisoned(seed)
        (tmp_path / file).write_text(json.dumps(table), encoding="utf-8")
        with pytest.raises(UnsafeWeights) as caught:
            look(tmp_path)
        assert str(tmp_path / file) in caught.value.message, (seed, caught.value)
        assert re.search(rf"\b{key}(\.subfolder)? = ", caught.value.message), (seed, caught.value)
        (tmp_path / file).write_text(json.dumps(PLAIN[file]), encoding="utf-8")
    look(tmp_path)


def test_poisoned_settings_quick(tmp_path: Path) -> None:
    hunt(tmp_path, range(300), inspect)


@pytest.mark.soak
def test_poisoned_settings_soak(tmp_path: Path) -> None:
    hunt(tmp_path, range(300, 60_000), inspect)


@pytest.mark.soak
def test_torn_settings_soak(tmp_path: Path) -> None:
    """Bytes changed at random: refused or let through, never another error."""
    write(tmp_path)
    draw = random.Random(1)
    for _ in range(20_000):
        file = tmp_path / draw.choice(sorted(PLAIN))
        whole = file.read_bytes()
        torn = bytearray(whole)
        for _ in range(draw.randrange(1, 6)):
            torn[draw.randrange(len(torn))] = draw.randrange(256)
        file.write_bytes(bytes(torn[: draw.randrange(1, len(torn) + 1)]))
        with contextlib.suppress(CorruptWeights, UnsafeWeights):
            inspect(tmp_path)
        file.write_bytes(whole)
