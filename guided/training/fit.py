"""The training loop: one for every objective.

    for step in fit({"objective": "reader", "name": "reader", "samples": 600_000, ...}): ...

**The objective interface** (``guided.training.objective``).  ``objective = "mapper"`` names the
class in ``objectives/mapper.py`` that subclasses ``TrainingObjective`` and has ``name = "mapper"``:

    class MapperObjective(Objective[MyBatch]):
        name = "mapper"
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

``self.settings`` is the validated table, ``self.ctx`` has ``seed``, ``data`` (folder or None),
``pools`` and ``device``.  A ``BatchContext`` has ``seed``, ``position`` (batches from 0), ``size``
(the whole batch), ``rows`` (this process's slice of it), ``count``, ``device`` and
``generator(name)``: a CPU generator that is a function of (seed, position, name) alone. Draw for
the whole batch, keep ``rows``. A batch may be any nest of tuples, lists, dicts and dataclasses of
tensors; tensors are moved to the device by the loop.

``loss`` runs under bf16 autocast when the recipe says ``precision = "bf16"`` and the processor
multiplies bf16 (one that does not would be tens of times slower than in fp32); the optimiser,
warm-up and cosine, clipping, EMA, checkpoints, roll-back after NaN, SIGTERM and the final files are
the loop's work.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from guided.core import unfinished
from guided.core.device import fastest_precision
from guided.core.files import make_folder, write_bytes
from guided.core.run import Result, Step
from guided.core.seeds import read_seed
from guided.errors import CannotDo, RecipeError, library_message
from guided.training import checkpoint
from guided.training.data_identity import expect_same, identities
from guided.training.distributed import DistributedGroup, StopSignal
from guided.training.finish import product_files, start_from
from guided.training.lock import claim
from guided.training.objective import BatchContext, TrainingContext, TrainingObjective
from guided.training.optimisers import set_learning_rate
from guided.training.prefetch import Prefetcher, to_device
from guided.training.registry import find, validated
from guided.training.report import Report, crosses, finite, numbers
from guided.training.schedule import Budget, learning_rate
from guided.training.settings import TrainingSettings
from guided.training.state import begin
from guided.training.tracking import expect_tracker, tracked

log = logging.getLogger(__name__)

Steps = Generator[Step[Any], None, Result]
#: Keys of every recipe that say nothing to the loop.
_COMMON = frozenset({"task", "about", "expect", "force", "kit", "online", "out"})
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
        CannotDo: another training lives in the same folder; wrong number of processes; a tracker
            that is not installed; the loss stays non-finite after the allowed roll-backs.
    """
    settings, seed, device = parse(recipe)
    budget = Budget(settings.samples, settings.seconds)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    if settings.nice and hasattr(os, "nice") and os.nice(0) == 0:  # otherwise it was chosen
        os.nice(settings.nice)
    expect_tracker(settings.tracker)
    folder = settings.work / settings.title
    group = DistributedGroup(settings.processes, device, settings.tracker, folder)
    ctx = TrainingContext(
        seed, settings.data, settings.pools, group.device, settings.resident, settings.start,
        settings.encoding,
    )  # fmt: skip
    objective = find(settings.objective, settings.settings, ctx)
    try:
        with _alone(settings, group), StopSignal() as stop:
            job = TrainingJob(settings, seed, budget, group, objective)
            with tracked(group.accelerator, settings.tracker, folder, job.state.step):
                yield from job.train(stop)
            result = job.result()
            group.barrier()  # nobody leaves while another still writes
            return result
    finally:
        objective.close()


def parse(recipe: Mapping[str, Any]) -> tuple[TrainingSettings, int, str | None]:
    """A recipe's training keys, seed and device name.

    Raises:
        RecipeError: an unknown key (with the nearest known one) or a wrong value.
    """
    keys = {key: value for key, value in recipe.items() if key not in _COMMON}
    seed, device = read_seed(keys.pop("seed", 0), "training recipe: seed"), keys.pop("device", None)
    settings: TrainingSettings = validated(TrainingSettings, keys, "training recipe")
    if not settings.objective:
        raise RecipeError(
            "The training recipe names no objective.", hint='For example: objective = "reader".'
        )
    return settings, seed, device


@dataclass
class TrainingJob:
    """One training from its first or next step to its files."""

    settings: TrainingSettings
    seed: int
    budget: Budget
    group: DistributedGroup
    objective: TrainingObjective[Any]
    finished: bool = False
    _clock: float = field(default_factory=time.monotonic)
    _unsound: list[str] = field(default_factory=list)
    _spent: float = field(default_factory=time.process_time)

    def __post_init__(self) -> None:
        self.folder = self.settings.work / self.settings.title
        self.digest = self.settings.digest(self.seed)
        own = self.objective.settings.model_dump()
        self.identity = identities(self.objective.data_digest(), own, self.settings.start)
        self.kind = fastest_precision(self.group.device, self.settings.precision)
        if self.kind != self.settings.precision:
            log.warning("This processor has no bf16 products: training in fp32, which is quicker.")
        self.state = begin(self.objective, self.settings, self.group.device)
        packed = checkpoint.read_newest(self.folder)
        if packed is not None:
            self._expect_same(packed)
            self._unpack(packed)
            self._lengthen(packed)
            log.info("Going on at step %d of %s.", self.state.step, self.folder)
        elif self.settings.start is not None:
            self.state.started_from = start_from(self.settings.start, self.objective, self.state)
        self.good = self.state.snapshot()
        self.model = self.group.wrap(self.state.model)
        self._saved_at = time.monotonic()

    def train(self, stop: StopSignal) -> Iterator[Step[Any]]:
        """Steps until the budget is used or a stop was asked for; then a checkpoint."""
        ahead = Prefetcher(self._batch, self.settings.prefetch)
        state, rows = self.state, Report()
        try:
            while self._progress() < 1:
                batch = ahead.get(state.position, lambda: stop.asked and self.group.world == 1)
                if batch is None:  # a stop was asked for while the batch was waited for
                    break
                values = self._update(batch)
                bad, halt, seconds = self.group.all_reduce_max(
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
            ahead.close(wait=self.finished)

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
        if not self.finished or not self.group.is_main:
            return Result(answer)
        files, metrics, notes = product_files(self.objective, self.settings, state, self.seed)
        for name, content in files.items():
            write_bytes(make_folder((self.folder / name).parent) / name.rpartition("/")[2], content)
        answer |= {"metrics": metrics, "notes": notes}
        return Result(answer, files=dict(files), scores=metrics)

    def save(self) -> None:
        """Write a checkpoint (the leading process alone)."""
        if self.group.is_main:
            extra = {
                "digest": self.digest,
                "settings": self.settings.model_dump_json(),
                "identity": self.identity,
            }
            checkpoint.write(self.folder, self.state.step, {**self.state.pack(), **extra})
            unfinished.note(
                f"the training is at step {self.state.step} in {self.folder.resolve()}; "
                "the same command goes on"
            )
        self._saved_at = time.monotonic()

    def _share(self, position: int) -> BatchContext:
        group = self.group
        return BatchContext(
            self.seed, position, self.settings.batch, group.rank, group.world, group.device
        )

    def _batch(self, position: int) -> Any:
        return to_device(self.objective.batch(self._share(position)), self.group.device)

    def _progress(self) -> float:
        return self.budget.progress(self.state.samples, self.state.seconds)

    def _elapsed(self) -> float:
        return self.state.seconds + time.monotonic() - self._clock

    def _tick(self, seconds: float) -> None:
        self._clock = time.monotonic()
        self.state.seconds = seconds
        spent = time.process_time()
        self.state.core_seconds += (spent - self._spent) * self.group.world
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
        self.group.accelerator.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(state.model.parameters(), settings.clip)
        values = numbers({"loss": loss, **parts, "gradient": norm})
        state.position += 1
        self._unsound = [name for name, value in values.items() if not finite(value)]
        if self.group.all_reduce_max(float(bool(self._unsound)))[0]:
            return None
        state.optimiser.step()
        state.ema.update(state.model, settings.batch)
        state.step += 1
        return {**values, "lr": lr}

    def _roll_back(self) -> None:
        state = self.state
        position, seconds, core = state.position, state.seconds, state.core_seconds
        scale, count = 0.5 * state.scale, state.rollbacks + 1
        if count > self.settings.rollbacks:
            raise CannotDo(
                f"The {' and '.join(self._unsound[:4]) or 'loss'} was not finite at step "
                f"{state.step} for the {count}th time.",
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
        if looked and self.group.is_main:
            with _repeatable(self._share(state.position)):
                values.update(self.objective.monitor(state.ema.module))
        left = self.budget.seconds_left(state.samples, state.seconds)
        row = {"step": float(state.step), "samples": float(state.samples)}
        state.history.append({**row, "seconds": state.seconds, **values})
        self.group.accelerator.log(values, step=state.step)
        total = round(state.step / max(self._progress(), 1e-9))
        values["minutes_left"] = left / 60
        yield Step(state.step, max(total, state.step), f"train {settings.title}", values)

    def _keep(self) -> None:
        if self.state.step % SNAPSHOT_STEPS == 0:
            self.good = self.state.snapshot()
        if time.monotonic() - self._saved_at >= 60 * self.settings.checkpoint_minutes:
            self.save()

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.group.device.type, torch.bfloat16, enabled=self.kind == "bf16")

    def _expect_same(self, packed: Mapping[str, Any]) -> None:
        if packed["digest"] != self.digest:
            raise CannotDo(
                f"The folder {self.folder} holds a training with other settings: "
                f"{packed['settings']}",
                hint="Give this one another name, or delete that folder.",
            )
        own = self.objective.settings.model_dump()
        names = {**own, "data": self.settings.data or "the world's own", "start": "start"}
        expect_same(packed.get("identity", {}), self.identity, names, self.folder)

    def _unpack(self, packed: dict[str, Any]) -> None:
        try:
            self.state.unpack(packed)
        except (RuntimeError, ValueError) as error:
            raise CannotDo(
                f"The training in {self.folder} was begun by a release whose model had other "
                f"parts: {library_message(error)}.",
                hint="Give this one a name of its own (--set name=NAME), or delete that folder.",
            ) from error

    def _lengthen(self, packed: Mapping[str, Any]) -> None:
        """Note, for the card, that a training goes on to another end than it began with."""
        before = TrainingSettings.model_validate_json(packed["settings"]).length
        if before != self.settings.length:
            seen = f"{self.state.samples:,} samples"
            self.state.lengthened.append(f"{before}, after {seen} {self.settings.length}")
            log.info("The training's length was %s; now %s.", before, self.settings.length)


@contextmanager
def _alone(settings: TrainingSettings, group: DistributedGroup) -> Iterator[None]:
    """Within, no other training writes to this one's folder.

    Raises:
        CannotDo: another one does.
    """
    if not group.is_main:
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
def _repeatable(share: BatchContext) -> Iterator[None]:
    """Torch's own generators, seeded for this share within and as before outside."""
    devices = [share.device] if share.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(share.number(f"torch {share.rank}"))
        yield
