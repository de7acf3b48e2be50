"""One loop for everything that is trained.

    for step in fit({"objective": "reader", "name": "reader", "samples": 600_000, ...}): ...

**The objective interface** (``guided.training.objective``).  ``objective = "clip"`` names the class
in ``guided/training/clip.py`` that subclasses ``Objective`` and has ``name = "clip"``:

    class ClipObjective(Objective[MyBatch]):
        name = "clip"
        class Settings(ObjectiveSettings):          # keys of the recipe's [settings] table
            width: int = 256
        def build(self) -> nn.Module                # one module holding everything trained, fp32
        def batch(self, share) -> MyBatch           # pure function of share; runs in another thread
        def loss(self, model, batch, share)         # -> (scalar tensor, {"part": tensor})
        def monitor(self, model) -> dict[str, float]        # EMA model, own data, never a judge
        def product(self, model) -> Product         # role, kind, metrics, settings, extra files
        def restore(self, model, tensors)           # shipped tensors back into the bare module
        def decays(self, name, parameter) -> bool   # weight decay; default: not on vectors
        def close(self)                             # stop workers

``self.settings`` is the validated table, ``self.around`` has ``seed``, ``data`` (folder or None),
``pools`` and ``device``.  A ``Share`` has ``seed``, ``position`` (batches from 0), ``size`` (whole
batch), ``rows`` (this process's slice of it), ``count``, ``device`` and ``generator(name)``: a CPU
generator that is a function of (seed, position, name) alone.  Draw for the whole batch, keep
``rows``.  A batch may be any nest of tuples, lists, dicts and dataclasses of tensors; tensors are
moved to the device by the loop.  Pictures come from ``guided.training.world_data``:

    pool = Pool.open(around.pools, seed=around.seed, split="train", size=128, count=300_000)
    seeds, pixels = pool.take(pool.rows(share))     # world seeds [n], uint8 [n, 128, 128, 3]
    portrait = guided.portraits.splits.sample(int(seed), "train")

``loss`` runs under bf16 autocast when the recipe says ``precision = "bf16"`` and the processor
multiplies bf16 (one that does not would be tens of times slower than in fp32); the optimiser,
warm-up and cosine, clipping, EMA, checkpoints, roll-back after NaN, SIGTERM and the final files are
the loop's work.
"""

from __future__ import annotations

import importlib
import logging
import os
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from guided.core.device import quickest
from guided.core.files import make_folder, write_bytes
from guided.core.run import Result, Step
from guided.errors import CannotDo, RecipeError, nearest
from guided.training import checkpoint
from guided.training.ahead import Ahead, to_device
from guided.training.finish import product_files, start_from
from guided.training.lock import claim
from guided.training.objective import Objective, Share, Surroundings
from guided.training.optimisers import set_learning_rate
from guided.training.processes import StopSignal, Team
from guided.training.report import Report, crosses, finite, numbers
from guided.training.schedule import Budget, learning_rate
from guided.training.settings import TrainingSettings
from guided.training.state import begin

log = logging.getLogger(__name__)

Steps = Generator[Step[Any], None, Result]
#: Keys of every recipe that say nothing to the loop.
_COMMON = frozenset({"task", "about", "expect", "kit", "online", "out"})
SNAPSHOT_STEPS = 200


def fit(recipe: Mapping[str, Any]) -> Steps:
    """Train what a recipe says, yielding Steps; the Result holds the files of the trained model.

    A training that was interrupted goes on where its last checkpoint is, bit for bit, when the
    same recipe is given again; with more samples (or time) it goes on to that end, also when it was
    finished, and its card says so.  ``answer`` of the Result: name, finished, samples, steps,
    folder, metrics; ``files``: model.safetensors, card.toml, losses.csv, curve.png and the
    objective's.

    Raises:
        RecipeError: keys that do not fit, or no end given.
        CannotDo: another training lives in the same folder; wrong number of processes; the loss
            stays non-finite after the allowed roll-backs.
    """
    settings, seed, device = parse(recipe)
    budget = Budget(settings.samples, settings.seconds)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    if settings.nice and hasattr(os, "nice") and os.nice(0) == 0:  # otherwise it was chosen
        os.nice(settings.nice)
    team = Team(settings.processes, device)
    around = Surroundings(seed, settings.data, settings.pools, team.device, settings.resident)
    objective = find(settings.objective, settings.settings, around)
    try:
        with _alone(settings, team), StopSignal() as stop:
            job = Job(settings, seed, budget, team, objective)
            yield from job.train(stop)
            result = job.result()
            team.meet()  # nobody leaves while another still writes
            return result
    finally:
        objective.close()


def parse(recipe: Mapping[str, Any]) -> tuple[TrainingSettings, int, str | None]:
    """A recipe's training keys, seed and device name.

    Raises:
        RecipeError: an unknown key (with the nearest known one) or a wrong value.
    """
    keys = {key: value for key, value in recipe.items() if key not in _COMMON}
    seed, device = int(keys.pop("seed", 0)), keys.pop("device", None)
    settings: TrainingSettings = _validated(TrainingSettings, keys, "training recipe")
    if not settings.objective:
        raise RecipeError(
            "The training recipe names no objective.", hint='For example: objective = "reader".'
        )
    return settings, seed, device


def find(name: str, table: Mapping[str, Any], around: Surroundings) -> Objective[Any]:
    """The objective of ``guided/training/<name>.py`` with its table of settings.

    Raises:
        RecipeError: no such objective, or keys that do not fit it.
    """
    try:
        module = importlib.import_module(f"guided.training.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"guided.training.{name}":
            raise
        module = None
    for value in vars(module).values() if module else ():
        if not (isinstance(value, type) and issubclass(value, Objective)):
            continue
        if getattr(value, "name", None) == name:
            return value(_validated(value.Settings, table, f"[settings] of {name}"), around)
    raise RecipeError(f"There is no objective {name!r}.", hint=nearest(name, objectives()))


def objectives() -> list[str]:
    """The names of all objectives: files with a class of that name, found without importing."""
    files = Path(__file__).parent.glob("*.py")
    return sorted(f.stem for f in files if f'\n    name = "{f.stem}"\n' in f.read_text("utf-8"))


def _validated(model: Any, table: Mapping[str, Any], where: str) -> Any:
    try:
        return model.model_validate(dict(table))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        hint = nearest(key, model.model_fields) if first["type"] == "extra_forbidden" else ""
        raise RecipeError(f"{where}: {key or 'keys'}: {first['msg']}.", hint=hint) from error


@dataclass
class Job:
    """One training from its first or next step to its files."""

    settings: TrainingSettings
    seed: int
    budget: Budget
    team: Team
    objective: Objective[Any]
    finished: bool = False
    _clock: float = field(default_factory=time.monotonic)
    _spent: float = field(default_factory=time.process_time)

    def __post_init__(self) -> None:
        self.folder = self.settings.work / self.settings.title
        self.digest = self.settings.digest(self.seed)
        self.kind = quickest(self.team.device, self.settings.precision)
        if self.kind != self.settings.precision:
            log.warning("This processor has no bf16 products: training in fp32, which is quicker.")
        self.state = begin(self.objective, self.settings, self.team.device)
        packed = checkpoint.read_newest(self.folder)
        if packed is not None:
            self._expect_same(packed)
            self.state.unpack(packed)
            self._lengthen(packed)
            log.info("Going on at step %d of %s.", self.state.step, self.folder)
        elif self.settings.start is not None:
            self.state.started_from = start_from(self.settings.start, self.objective, self.state)
        self.good = self.state.snapshot()
        self.model = self.team.wrap(self.state.model)
        self._saved_at = time.monotonic()

    def train(self, stop: StopSignal) -> Iterator[Step[Any]]:
        """Steps until the budget is used or a stop was asked for; then a checkpoint."""
        ahead = Ahead(self._batch, self.settings.prefetch)
        state, rows = self.state, Report()
        try:
            while self._progress() < 1:
                values = self._update(ahead.get(state.position))
                bad, halt, seconds = self.team.largest(
                    float(values is None), float(stop.asked), self._elapsed()
                )
                self._tick(seconds)
                if bad or values is None:
                    self._roll_back()
                else:
                    rows.add(values)
                yield from self._report(rows)
                if halt:
                    break
                self._keep()
            self.finished = self._progress() >= 1
            self.save()
        except GeneratorExit:
            self.save()
            raise
        finally:
            ahead.close()

    def result(self) -> Result:
        """The files of the trained model, or the place where an interrupted training waits."""
        state = self.state
        answer: dict[str, Any] = {
            "name": self.settings.title,
            "finished": self.finished,
            "samples": state.samples,
            "steps": state.step,
            "folder": str(self.folder.resolve()),
        }
        if not self.finished or not self.team.leads:
            return Result(answer)
        files, metrics = product_files(self.objective, self.settings, state, self.seed)
        for name, content in files.items():
            write_bytes(make_folder((self.folder / name).parent) / name.rpartition("/")[2], content)
        return Result({**answer, "metrics": metrics}, files=dict(files), scores=metrics)

    def save(self) -> None:
        """Write a checkpoint (the leading process alone)."""
        if self.team.leads:
            extra = {"digest": self.digest, "settings": self.settings.model_dump_json()}
            checkpoint.write(self.folder, self.state.step, {**self.state.pack(), **extra})
        self._saved_at = time.monotonic()

    def _share(self, position: int) -> Share:
        team = self.team
        return Share(self.seed, position, self.settings.batch, team.rank, team.world, team.device)

    def _batch(self, position: int) -> Any:
        return to_device(self.objective.batch(self._share(position)), self.team.device)

    def _progress(self) -> float:
        return self.budget.progress(self.state.samples, self.state.seconds)

    def _elapsed(self) -> float:
        return self.state.seconds + time.monotonic() - self._clock

    def _tick(self, seconds: float) -> None:
        self._clock = time.monotonic()
        self.state.seconds = seconds
        spent = time.process_time()
        self.state.core_seconds += (spent - self._spent) * self.team.world
        self._spent = spent

    def _update(self, batch: Any) -> dict[str, float] | None:
        """One step of the optimiser and of the average; None when something was not finite."""
        settings, state = self.settings, self.state
        samples = state.samples + settings.batch
        warmup = min(settings.warmup, 2000) if state.started_from else settings.warmup
        lr = settings.lr * state.scale
        lr *= learning_rate(self._progress(), samples, warmup, settings.final_lr)
        set_learning_rate(state.optimiser, lr)
        with _repeatable(self._share(state.position)), self._precision():
            loss, parts = self.objective.loss(self.model, batch, self._share(state.position))
        state.optimiser.zero_grad(set_to_none=True)
        self.team.accelerator.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(state.model.parameters(), settings.clip)
        values = numbers({"loss": loss, **parts, "gradient": norm})
        state.position += 1
        bad = not all(map(finite, values.values()))
        if self.team.largest(float(bad))[0]:
            return None
        state.optimiser.step()
        state.average.update(state.model, settings.batch)
        state.step += 1
        return {**values, "lr": lr}

    def _roll_back(self) -> None:
        state = self.state
        position, seconds, core = state.position, state.seconds, state.core_seconds
        scale, count = 0.5 * state.scale, state.rollbacks + 1
        if count > self.settings.rollbacks:
            raise CannotDo(
                f"The loss was not finite at step {state.step} for the {count}th time.",
                hint='Set a smaller lr or clip, or precision = "fp32".',
            )
        state.unpack(self.good)
        state.position, state.seconds, state.core_seconds = position, seconds, core
        state.scale, state.rollbacks = scale, count
        log.warning(
            "Not finite: back to step %d with the learning rate at %g of the recipe's (%d of %d).",
            state.step, scale, count, self.settings.rollbacks,
        )  # fmt: skip

    def _report(self, rows: Report) -> Iterator[Step[Any]]:
        state, settings = self.state, self.settings
        looked = settings.monitor_samples and crosses(
            state.samples, settings.batch, settings.monitor_samples
        )
        if len(rows) < settings.report_steps and not looked:
            return
        values = rows.take(settings.batch)
        if looked and self.team.leads:
            with _repeatable(self._share(state.position)):
                values.update(self.objective.monitor(state.average.module))
        left = self.budget.seconds_left(state.samples, state.seconds)
        row = {"step": float(state.step), "samples": float(state.samples)}
        state.history.append({**row, "seconds": state.seconds, **values})
        total = round(state.step / max(self._progress(), 1e-9))
        values["minutes_left"] = left / 60
        yield Step(state.step, max(total, state.step), f"train {settings.title}", values)

    def _keep(self) -> None:
        if self.state.step % SNAPSHOT_STEPS == 0:
            self.good = self.state.snapshot()
        if time.monotonic() - self._saved_at >= 60 * self.settings.checkpoint_minutes:
            self.save()

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.team.device.type, torch.bfloat16, enabled=self.kind == "bf16")

    def _expect_same(self, packed: Mapping[str, Any]) -> None:
        if packed["digest"] != self.digest:
            raise CannotDo(
                f"The folder {self.folder} holds a training with other settings: "
                f"{packed['settings']}",
                hint="Give this one another name, or delete that folder.",
            )

    def _lengthen(self, packed: Mapping[str, Any]) -> None:
        """Note, for the card, that a training goes on to another end than it began with."""
        before = TrainingSettings.model_validate_json(packed["settings"]).length
        if before != self.settings.length:
            seen = f"{self.state.samples:,} samples"
            self.state.lengthened.append(f"{before}, after {seen} {self.settings.length}")
            log.info("The training's length was %s; now %s.", before, self.settings.length)


@contextmanager
def _alone(settings: TrainingSettings, team: Team) -> Iterator[None]:
    """Within, no other training writes to this one's folder.

    Raises:
        CannotDo: another one does.
    """
    if not team.leads:
        yield
        return
    folder = make_folder(settings.work / settings.title)
    with claim(folder / ".lock") as free:
        if not free:
            raise CannotDo(
                f"Another process is training {settings.title!r} in {folder}.",
                hint="Wait for it, stop it, or give this training another name.",
            )
        yield


@contextmanager
def _repeatable(share: Share) -> Iterator[None]:
    """Torch's own generators, seeded for this share within and as before outside."""
    devices = [share.device] if share.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(share.number(f"torch {share.rank}"))
        yield
