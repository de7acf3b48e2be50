"""Nothing in the package loads or runs what it should not."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import guided

ROOT = Path(guided.__file__).parent
FORBIDDEN: dict[str, set[str]] = {
    r"weights_only\s*=\s*False": set(),
    r"\bpickle\.loads?\(": set(),
    r"\bpickle\.Unpickler\b|\b_?pickle import .*Unpickler\b": {"zoo/nvidia.py"},
    r"(?<![\w.])eval\(": set(),
    r"(?<![\w.])exec\(": set(),
    r"\byaml\.load\(": set(),
    r"trust_remote_code\s*=\s*True": set(),
    r"allow_pickle\s*=\s*True": set(),
    r"\bmarshal\b|\bdill\b|\bcloudpickle\b|\bjoblib\b": set(),
}


def lines_with(pattern: str) -> set[str]:
    found = set()
    for file in ROOT.rglob("*.py"):
        for line in file.read_text(encoding="utf-8").splitlines():
            if re.search(pattern, line) and not line.lstrip().startswith(("#", '"', "'")):
                found.add(file.relative_to(ROOT).as_posix())
    return found


@pytest.mark.parametrize("pattern", sorted(FORBIDDEN))
def test_forbidden_calls_are_absent(pattern: str) -> None:
    assert lines_with(pattern) == FORBIDDEN[pattern]


def test_torch_load_always_says_weights_only() -> None:
    for file in ROOT.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        for call in re.finditer(r"torch\.load\(", text):
            rest = text[call.end() : call.end() + 200]
            assert "weights_only=True" in rest.split("\n\n")[0], file


# ------------------------------------------------------------- calls, by the syntax tree

#: Calls that load models, arrays or code, and the files of the package that may make them.
GATED: dict[str, set[str]] = {
    r"from_pretrained|from_config|from_single_file|load_config": {"guided/zoo/gate_calls.py"},
    r"create_model\w*|get_tokenizer|HFTokenizer|SigLipTokenizer": {
        "guided/zoo/gate_calls.py",
        "guided/tasks/_method_tables.py",  # pydantic's, of options
    },
    r"Auto(Model\w*|Tokenizer|Config|Processor|PipelineFor\w+)": set(),
    r"snapshot_download": {"guided/zoo/gate_calls.py", "guided/zoo/hub.py"},
    r"hf_hub_download": {"guided/scorers/clip_files.py"},
    r"torch\.load|hub\.load\w*|jit\.load": {
        "guided/training/checkpoint.py", "guided/zoo/pickle_stubs.py", "guided/zoo/safe.py",
    },
    r"pickle\.(loads?|Unpickler)|marshal\.loads?|shelve\.open|runpy\.\w+": set(),
    r"(np|numpy)\.load": {
        "guided/training/feature_cache.py",
        "guided/worlds/portraits/training/world_data.py",
        "guided/zoo/arrays.py",
    },
    r"exec|eval|compile|__import__|execfile|exec_module|spec_from_file_location": set(),
}  # fmt: skip
#: Modules found by a name that is not all written out: always one of the package's own.
NAMED_MODULES = {
    "guided/cli/group.py", "guided/zoo/__init__.py",
    "guided/core/plugins.py",  # a class of the user's own module, which a picture may not name
}  # fmt: skip


def sources() -> list[Path]:
    """All Python files of the package, and the tools beside it where this is a checkout."""
    tools = ROOT.parent / "scripts"
    return [*ROOT.rglob("*.py"), *(tools.rglob("*.py") if tools.is_dir() else ())]


@cache
def trees() -> dict[str, list[ast.AST]]:
    """The nodes of every file, by its name."""
    return {
        file.relative_to(ROOT.parent).as_posix(): list(
            ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        )
        for file in sources()
    }


def called(nodes: list[ast.AST]) -> list[tuple[str, str, ast.Call]]:
    """Every call: the last name, that name with the one before it, and the node."""
    calls = []
    for node in nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            calls.append((node.func.id, node.func.id, node))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            before = node.func.value
            owner = before.id if isinstance(before, ast.Name) else getattr(before, "attr", "")
            calls.append((node.func.attr, f"{owner}.{node.func.attr}", node))
    return calls


def offenders(nodes: list[ast.AST], name: str) -> list[str]:
    """What a file calls without being allowed to."""
    wrong = []
    own = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    for last, dotted, node in called(nodes):
        for pattern, allowed in GATED.items():
            subject = dotted if r"\." in pattern else last
            if not re.fullmatch(pattern, subject) or name in allowed:
                continue
            gate = isinstance(node.func, ast.Name) and (last in own or last == "from_config")
            method = last in ("eval", "compile") and isinstance(node.func, ast.Attribute)
            if not gate and not method:
                wrong.append(f"{name}:{node.lineno}: {dotted}")
        if last == "import_module" and name not in NAMED_MODULES and not own_module(node.args[0]):
            wrong.append(f"{name}:{node.lineno}: {ast.unparse(node)}")
    return wrong


def own_module(argument: ast.expr) -> bool:
    """Whether a module's name is written out, or begins with the package's."""
    if isinstance(argument, ast.JoinedStr) and argument.values:
        head = argument.values[0]
        return isinstance(head, ast.Constant) and str(head.value).startswith("guided.")
    return isinstance(argument, ast.Constant)


def test_no_call_stands_outside_the_gate() -> None:
    wrong = []
    for name, nodes in trees().items():
        wrong += offenders(nodes, name)
    assert wrong == []


def test_no_call_goes_by_another_name() -> None:
    """The loaders are never imported under a name that the test above would not know."""
    pattern = re.compile("|".join(GATED) + "|import_module")
    for file, nodes in trees().items():
        for node in nodes:
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    assert alias.asname is None or not pattern.fullmatch(alias.name), file
        for name, _, node in called(nodes):
            if name == "getattr" and isinstance(node.args[1], ast.Constant):
                assert not pattern.fullmatch(str(node.args[1].value)), file


@pytest.mark.parametrize(
    "line",
    [
        "Model.from_pretrained(folder)", "kind.from_config(c)", "diffusers.X.from_single_file(f)",
        "X.load_config(f)", "open_clip.create_model('x')", "create_model_and_transforms('x')",
        "open_clip.get_tokenizer('x')", "get_tokenizer('x')", "HFTokenizer('x')",
        "transformers.AutoModelForCausalLM('x')", "torch.load(f, weights_only=True)",
        "torch.hub.load('a', 'b')", "pickle.loads(data)", "np.load(f)", "exec(text)", "eval(text)",
        "compile(text, 'a', 'exec')", "__import__(name)", "importlib.import_module(name)",
        "importlib.import_module(f'{name}.guided.')", "snapshot_download('a/b')",
        "spec.loader.exec_module(module)",
    ],
)  # fmt: skip
def test_the_search_finds(line: str) -> None:
    assert offenders(list(ast.walk(ast.parse(line))), "guided/new.py")


@pytest.mark.parametrize(
    "line",
    [
        "net.eval()", "re.compile(text)", "importlib.import_module('torch')", "load_part(kind, f)",
        "importlib.import_module(f'guided.tasks.{name}')", "from_config(kind, settings)",
    ],
)  # fmt: skip
def test_the_search_lets_pass(line: str) -> None:
    assert not offenders(list(ast.walk(ast.parse(line))), "guided/new.py")


def test_arrays_are_never_read_with_objects() -> None:
    for file, nodes in trees().items():
        for _, dotted, node in called(nodes):
            if dotted in ("np.load", "numpy.load"):
                asked = {each.arg: ast.unparse(each.value) for each in node.keywords}
                assert asked.get("allow_pickle", "False") == "False", file


def test_code_of_model_folders_is_never_trusted() -> None:
    """Where a library can be told, it is told; nowhere is it told anything else."""
    told = []
    for nodes in trees().values():
        for node in nodes:
            pairs: list[tuple[object, ast.expr]] = []
            if isinstance(node, ast.Call):
                pairs = [(each.arg, each.value) for each in node.keywords]
            if isinstance(node, ast.Dict):
                pairs = [
                    (key.value, value)
                    for key, value in zip(node.keys, node.values, strict=True)
                    if isinstance(key, ast.Constant)
                ]
            told += [ast.unparse(value) for name, value in pairs if name == "trust_remote_code"]
    assert told == ["False"] * 2
