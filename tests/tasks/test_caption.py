from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from guided.core.run import Result, Step
from guided.errors import MissingWeights, OutputError, UsageError
from guided.losses.word_clip import WordClip
from guided.tasks._caption_kit import CaptionKit
from guided.tasks.base import Steps, TaskContext
from guided.tasks.caption import Options, listed, run
from guided.worlds.portraits import draw, sample
from tests.helpers import caption_models

# Fixtures.
one_thread = caption_models.one_thread
clip_folder = caption_models.clip_folder
language_folder = caption_models.language_folder
scorer = caption_models.scorer
words = caption_models.words
folder = caption_models.folder


@pytest.fixture
def kit(clip_folder: Path, language_folder: Path) -> dict[str, str]:
    return {"scorer": f"local-dir:{clip_folder}", "language": f"local-dir:{language_folder}"}


def finished(going: Steps, steps: list[Step[Any]] | None = None) -> Result:
    """The result of a verb's Steps, which are kept."""
    while True:
        try:
            step = next(going)
        except StopIteration as end:
            return end.value
        if steps is not None:
            steps.append(step)


def caption(
    kit: dict[str, str], *images: Path, folder: Path | None = None, **options: Any
) -> tuple[Result, list[Step[Any]]]:
    ctx = TaskContext(device_name="cpu", kit=kit, folder=folder)
    own = {"iterations": 2} if options.get("method") != "fuse" else {}
    given = Options(images=list(images), **{"beams": 2, "length": 3, **own, **options})
    steps: list[Step[Any]] = []
    return finished(run(given, ctx), steps), steps


def test_a_picture(kit: dict[str, str], folder: Path) -> None:
    result, steps = caption(kit, folder / "0.png")
    (row,) = result.answer["results"]
    assert row["file"] == str(folder / "0.png")
    assert set(row["captions"][0]) == {"text", "clip", "language", "total"}
    assert row["captions"][0]["text"].startswith("a portrait of")
    assert [step.index for step in steps] == [1, 2, 3]
    assert result.scores["total"] == row["captions"][0]["total"]
    json.dumps(result.answer)


@pytest.mark.parametrize(
    "options",
    [
        {"preset": "ocr"},
        {"preset": "world", "method": "fuse"},
        {"prompt": "someone with"},
        {"compat": "zerocap"},
        {"compat": "zerocap", "plus": ["a red hat"]},
        {"precision": "bf16"},
        {"prompt": "", "method": "fuse"},
    ],
)
def test_ways_to_ask(kit: dict[str, str], folder: Path, options: dict[str, Any]) -> None:
    result, _ = caption(kit, folder / "1.png", **options)
    text = result.answer["results"][0]["captions"][0]["text"]
    presets = {"ocr": "a shirt that says", "world": "This person has"}
    prompt = options.get("prompt", presets.get(options.get("preset", ""), "a portrait of"))
    assert text.startswith(prompt)


def test_a_folder_equals_its_pictures(kit: dict[str, str], folder: Path) -> None:
    result, steps = caption(kit, folder, batch=2)
    assert [Path(row["file"]).name for row in result.answer["results"]] == [
        f"{number}.png" for number in range(5)
    ]
    assert [step.total for step in steps] == [9] * len(steps)
    assert [step.index for step in steps] == sorted({step.index for step in steps})
    for row in result.answer["results"]:
        alone, _ = caption(kit, Path(row["file"]))
        (single,) = alone.answer["results"]
        assert [c["text"] for c in single["captions"]] == [c["text"] for c in row["captions"]]
        for one, other in zip(single["captions"], row["captions"], strict=True):
            assert one["total"] == pytest.approx(other["total"], abs=1e-4)


def test_sums_of_pictures_and_texts(kit: dict[str, str], folder: Path) -> None:
    first, second = folder / "0.png", folder / "1.png"
    alone, _ = caption(kit, second)
    drowned, _ = caption(kit, first, plus=[f"1000*{second}"])
    assert [c["text"] for c in drowned.answer["results"][0]["captions"]] == [
        c["text"] for c in alone.answer["results"][0]["captions"]
    ]
    turned, _ = caption(kit, first, plus=[str(second)], minus=["a dog on the grass"])
    assert turned.answer["results"] != alone.answer["results"]
    changed, _ = caption(kit, first, plus=["3*a dog on the grass"])
    plain, _ = caption(kit, first)
    assert changed.answer["results"] != plain.answer["results"]
    with pytest.raises(UsageError, match=r"no picture 'nowhere.png'"):
        caption(kit, first, plus=["nowhere.png"])


def test_one_broken_file_spares_the_others(kit: dict[str, str], tmp_path: Path) -> None:
    for seed in range(2):
        draw(sample(seed), 48).save(tmp_path / f"{seed}.png")
    (tmp_path / "1a.png").write_bytes(b"no picture at all")
    out = tmp_path / "out"
    result, _ = caption(kit, tmp_path, folder=out)
    assert [Path(row["file"]).name for row in result.answer["results"]] == ["0.png", "1.png"]
    (error,) = result.answer["errors"]
    assert error["file"].endswith("1a.png")
    assert "1a.png" in error["error"]
    assert "1a.png" in str(result.files["captions.csv"])


def test_only_broken_files(kit: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"nothing")
    result, _ = caption(kit, tmp_path / "a.png")
    assert result.answer["results"] == []
    assert len(result.answer["errors"]) == 1


def test_lines_and_table(kit: dict[str, str], folder: Path, tmp_path: Path) -> None:
    result, _ = caption(kit, folder, folder=tmp_path, batch=2)
    lines = [json.loads(line) for line in (tmp_path / "captions.jsonl").read_text().splitlines()]
    assert [{k: line[k] for k in ("file", "captions")} for line in lines] == (
        result.answer["results"]
    )
    assert str(result.files["captions.jsonl"]) == (tmp_path / "captions.jsonl").read_text()
    table = str(result.files["captions.csv"]).splitlines()
    assert table[0] == "file,rank,text,clip,language,total,error"
    assert len(table) == 1 + sum(len(line["captions"]) for line in lines)


def test_pictures_to_look_at(kit: dict[str, str], folder: Path) -> None:
    result, _ = caption(kit, folder / "0.png", folder / "1.png", sheet=True, relevance=True)
    names = [picture.name for picture in result.pictures]
    assert names == ["sheet.png", "relevance/0000-0.png", "relevance/0001-1.png"]
    assert result.pictures[1].parents == (str(folder / "0.png"),)
    assert all(picture.image.width > 100 for picture in result.pictures)


def test_pictures_in_memory(kit: dict[str, str]) -> None:
    ctx = TaskContext(device_name="cpu", kit=kit, given={"mine": Image.new("RGB", (40, 30))})
    going = run(Options(images=[Path("mine")], beams=2, length=2, iterations=1), ctx)
    result = finished(going)
    assert result.answer["results"][0]["file"] == "mine"


def test_impossible_wishes(kit: dict[str, str], folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file or folder"):
        caption(kit, tmp_path / "none.png")
    with pytest.raises(UsageError, match="has no pictures"):
        caption(kit, tmp_path)
    with pytest.raises(UsageError, match="prompt is empty"):
        caption(kit, folder / "0.png", prompt="")
    with pytest.raises(UsageError, match="shorter prompt"):
        caption(kit, folder / "0.png", prompt="a hat " * 60)
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        Options(images=[folder], beams=0)
    with pytest.raises(MissingWeights) as caught:
        caption({**kit, "language": f"local-dir:{tmp_path}"}, folder / "0.png")
    assert str(tmp_path) in str(caught.value)
    assert "guided models get" in str(caught.value)
    with pytest.raises(UsageError, match="names no language"):
        caption({"scorer": kit["scorer"]}, folder / "0.png")


def test_files_are_listed_once(folder: Path) -> None:
    ctx = TaskContext()
    assert len(listed([folder, folder / "3.png", folder], ctx)) == 5


def test_a_folder_with_other_settings_is_left_alone(
    kit: dict[str, str], folder: Path, tmp_path: Path
) -> None:
    caption(kit, folder / "0.png", folder=tmp_path)
    kept = (tmp_path / "captions.jsonl").read_bytes()
    with pytest.raises(OutputError, match=r"other settings \(length\)"):
        caption(kit, folder / "0.png", folder=tmp_path, length=4)
    assert (tmp_path / "captions.jsonl").read_bytes() == kept


def test_finished_files_are_not_captioned_again(
    kit: dict[str, str], folder: Path, tmp_path: Path
) -> None:
    first, steps = caption(kit, folder, folder=tmp_path, batch=2)
    again, none = caption(kit, folder, folder=tmp_path, batch=2)
    assert steps
    assert none == []
    assert again.answer == first.answer


def test_a_changed_picture_is_captioned_again(kit: dict[str, str], tmp_path: Path) -> None:
    draw(sample(0), 48).save(tmp_path / "a.png")
    caption(kit, tmp_path / "a.png", folder=tmp_path / "out")
    draw(sample(1), 48).save(tmp_path / "a.png")
    result, steps = caption(kit, tmp_path / "a.png", folder=tmp_path / "out")
    fresh, _ = caption(kit, tmp_path / "a.png")
    assert steps
    assert result.answer == fresh.answer


@pytest.mark.parametrize("cut", [1, 7, 40])
def test_a_torn_line_is_written_anew(
    kit: dict[str, str], folder: Path, tmp_path: Path, cut: int
) -> None:
    whole, _ = caption(kit, folder, folder=tmp_path, batch=2)
    path = tmp_path / "captions.jsonl"
    text = path.read_bytes()
    os.truncate(path, len(text) - cut)
    again, steps = caption(kit, folder, folder=tmp_path, batch=2)
    assert again.answer == whole.answer
    assert again.files == whole.files
    assert {step.index for step in steps} <= {7, 8, 9}


SCRIPT = """
import sys, torch
torch.set_num_threads(1)
from collections.abc import Callable
from pathlib import Path
from guided.tasks.base import Steps, TaskContext
from guided.tasks.caption import Options, run
clip, language, pictures, out = sys.argv[1:]
ctx = TaskContext(device_name="cpu", kit={"scorer": clip, "language": language}, folder=Path(out))
options = Options(images=[Path(pictures)], beams=2, iterations=2, length=3, batch=2)
print("ready", flush=True)
for step in run(options, ctx):
    print(step.index, flush=True)
"""


def kill_after(words: list[str], arguments: list[str]) -> None:
    """Start the captioning of a folder and kill it -9 once it has said the last of some words."""
    command = [sys.executable, "-c", SCRIPT, *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == words[-1]:
            break
    time.sleep(0.01 * (len(words) % 3))
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize("point", [pytest.param(4)] + [
    pytest.param(point, marks=pytest.mark.soak) for point in (1, 2, 3, 5, 6, 7, 8)
])  # fmt: skip
def test_killed_and_resumed_is_as_never_killed(
    kit: dict[str, str], folder: Path, tmp_path: Path, point: int
) -> None:
    expected, _ = caption(kit, folder, folder=tmp_path / "whole", batch=2)
    out = tmp_path / "killed"
    kill_after([str(point)], [*kit.values(), str(folder), str(out)])
    result, steps = caption(kit, folder, folder=out, batch=2)
    assert result.answer == expected.answer
    assert result.files == expected.files
    assert min(step.index for step in steps) >= (point - 1) // 3 * 3 + 1


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(3))
def test_killed_again_and_again_is_as_never_killed(
    kit: dict[str, str], folder: Path, tmp_path: Path, seed: int
) -> None:
    """Every process gets a little further and is killed at a moment drawn at random."""
    expected, _ = caption(kit, folder, folder=tmp_path / "whole", batch=2)
    rng, out, deaths = random.Random(seed), tmp_path / "killed", 0
    command = [sys.executable, "-c", SCRIPT, *kit.values(), str(folder), str(out)]
    while deaths < 12:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert process.stdout is not None
        said = [line for line, _ in zip(process.stdout, range(rng.randint(2, 5)), strict=False)]
        time.sleep(rng.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        deaths += 1
        if said[1:] == []:
            break
    result, _ = caption(kit, folder, folder=out, batch=2)
    assert deaths >= 2
    assert result.answer == expected.answer
    assert result.files == expected.files


def test_the_command_line(
    kit: dict[str, str], tmp_path: Path, guided_cli: Callable[..., Any]
) -> None:
    draw(sample(0), 48).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"broken")
    models = ("--scorer", kit["scorer"], "--language", kit["language"], "--device", "cpu")
    said = guided_cli(
        "caption", tmp_path, *models, "--beams", 2, "--length", 2, "--sheet", "--json",
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert said.status == 1, said.err
    (row,) = said.answer["results"]
    assert row["file"] == str(tmp_path / "a.png")
    assert [Path(error["file"]).name for error in said.answer["errors"]] == ["b.png"]
    assert {"captions.jsonl", "captions.csv", "sheet.png", "run.json"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }
    wrong = guided_cli("caption", tmp_path / "a.png", *models, "--beams", 0)
    assert wrong.status == 2
    assert "beams" in wrong.err
    lost = guided_cli("caption", tmp_path / "a.png", "--language", f"local-dir:{tmp_path}")
    assert lost.status == 1
    assert str(tmp_path) in lost.err
    assert "guided models get" in lost.err


def test_options_win_over_the_profile_and_the_paper_over_both(
    kit: dict[str, str], language_folder: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    shutil.copytree(language_folder, own)
    text = (own / "captions.toml").read_text("utf-8")
    extra = "rate = 0.9\nprior = 1.0\n[weight]\noptimise = 4.0\nfuse = 6.0\n"
    (own / "captions.toml").write_text(text.replace("[prompts]", f"{extra}[prompts]"), "utf-8")
    ctx = TaskContext(device_name="cpu", kit={**kit, "language": f"local-dir:{own}"})

    def opened(**options: Any) -> CaptionKit:
        return CaptionKit.open(Options(images=[Path("x")], **options), ctx)

    profile = opened()
    assert (profile.captioner.rate, profile.captioner.weight) == (0.9, 4.0)
    assert opened(method="fuse").captioner.weight == 6.0
    assert profile.objective.terms[0].loss == WordClip(48, 0.01, 1.0)
    given = opened(rate=0.2, prior=0.5, weight=3.0, fluency_weight=0.7)
    assert (given.captioner.rate, given.captioner.weight) == (0.2, 3.0)
    assert [term.weight for term in given.objective.terms] == [1.0, 0.7]
    paper = opened(compat="zerocap")
    assert (paper.captioner.rate, paper.captioner.iterations, paper.captioner.weight) == (
        0.3,
        5,
        0.0,
    )
    assert paper.objective.terms[0].loss == WordClip(48, 0.01, 0.0)
