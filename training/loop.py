"""The one training loop: steps, accumulation, ranks, clipping, guards, metrics, checkpoints. It knows no method.

    module(micro_batch, measure) -> (loss summed over supervised weight, {name: (sum, count)} to report)

A step's loss is that sum over all micro-batches and ranks, divided by their supervised weight: the same number
however the step is cut. Batches and random numbers are functions of (seed, step), so a resumed run is the same run.
"""

import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import nn

from curation.errors import StorageError
from curation.schema import content_id
from training.checkpoint import newest_checkpoint, save_checkpoint
from training.distributed import (
    Parallel,
    Ranks,
    gradients_stay_local,
    load_whole_state,
    parallelize,
    total_norm,
    whole_state,
)
from training.metrics import Metrics, Progress
from training.optimizer import Schedule, adamw, schedule_factor

Precision = Literal["fp32", "bf16"]
BAD_STEPS = 3  # so many non-finite steps in a row: back to the last checkpoint, past the window
RELOADS = 2


class MicroBatch(Protocol):
    supervised: float

    @property
    def tokens(self) -> int: ...

    def to(self, device: torch.device) -> "MicroBatch": ...


class BatchPlan(Protocol):
    @property
    def steps(self) -> int: ...

    def __call__(self, step: int, rank: int, world: int) -> list[Any]: ...

    def epoch(self, step: int) -> float: ...


@dataclass(frozen=True)
class LoopConfig:
    out: Path
    learning_rate: float
    schedule: Schedule = "linear"
    warmup_steps: int = 0
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    max_grad_norm: float = 1.0  # 0 = off
    seed: int = 0
    precision: Precision = "fp32"
    parallel: Parallel = "ddp"
    save_every: int = 0  # steps; 0 = only when interrupted
    keep: int = 2
    log_every: int = 10
    trackers: tuple[str, ...] = ()
    resume: bool = True
    data_sha: str = ""


class FitResult(NamedTuple):
    steps: int
    losses: list[float]  # of the logged steps
    skipped: int  # steps left out because loss or gradient was not finite


@dataclass
class State:
    """What a run carries from step to step."""

    step: int = 0
    tokens: float = 0.0
    skipped: int = 0
    bad_in_row: int = 0
    reloads: int = 0


def fit(module: nn.Module, batches: BatchPlan, config: LoopConfig, ranks: Ranks) -> FitResult:
    """Train `module` in place. Raises StorageError when non-finite steps outlast two reloads; KeyboardInterrupt
    after a checkpoint when told to stop (SIGTERM or SIGINT)."""
    model = parallelize(module.to(ranks.device), ranks, config.parallel)
    optimizer = adamw(model.parameters(), config.learning_rate, config.betas, config.eps, config.weight_decay)
    run = Run(model, optimizer, batches, config, ranks)
    run.restore()
    with run.stop_signals():
        while run.state.step < batches.steps:
            run.advance()
    if run.metrics:
        run.metrics.close()
    return FitResult(batches.steps, run.losses, run.state.skipped)


class Run:
    """One fit: its parts, and the few numbers it carries. Split from `fit` so that each move is a short method."""

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, batches: BatchPlan, config: LoopConfig, ranks: Ranks
    ) -> None:
        self.model, self.optimizer, self.batches, self.config, self.ranks = model, optimizer, batches, config, ranks
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.state = State()
        self.losses: list[float] = []
        self.stop = False
        self.metrics: Metrics | None = None
        self.progress = Progress(batches.steps, quiet=not ranks.first)
        self.clock, self.clock_step, self.clock_tokens = time.perf_counter(), 0, 0.0
        same_run = (config.seed, batches.steps, config.learning_rate, config.schedule, config.precision)
        self.record = {"settings": content_id(*same_run), "data": config.data_sha, "world": ranks.world}

    def restore(self) -> None:
        """Go on from the newest checkpoint that verifies, if there is one."""
        found = newest_checkpoint(self.config.out / "checkpoints", self.record) if self.config.resume else None
        if found:
            manifest, saved = found
            load_whole_state(self.model, self.optimizer, saved["model"], saved["optimizer"])
            self.state = State(manifest["step"], manifest["tokens"], manifest["skipped"])
        if self.ranks.first:
            settings = {k: str(v) for k, v in vars(self.config).items()}
            kept = found[0]["metrics_bytes"] if found else 0
            self.metrics = Metrics(self.config.out, self.config.trackers, settings, kept)
        self.clock_step, self.clock_tokens = self.state.step, self.state.tokens

    def advance(self) -> None:
        """One optimizer step, with what follows it: guard, log, checkpoint."""
        step, config = self.state.step, self.config
        logs = (step + 1) % config.log_every == 0 or step + 1 == self.batches.steps or step == 0
        rate = config.learning_rate * schedule_factor(config.schedule, step, self.batches.steps, config.warmup_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        sums = self.gradients(step, measure=logs)
        norm = total_norm(self.parameters, config.max_grad_norm)
        # The one host sync of a step: whether it is safe to take it.
        loss, finite = float(sums["loss"]), bool(torch.isfinite(norm)) and bool(torch.isfinite(sums["loss"]))
        if finite:
            self.optimizer.step()
            self.state.bad_in_row = 0
        self.optimizer.zero_grad(set_to_none=True)
        self.state.step, self.state.tokens = step + 1, self.state.tokens + float(sums["tokens"])
        if not finite:
            self.not_finite(step)
        elif logs:
            self.log(loss, float(norm), rate, sums)
        if self.told_to_stop():
            self.save()
            raise KeyboardInterrupt
        if config.save_every and self.state.step % config.save_every == 0:
            self.save()

    def gradients(self, step: int, measure: bool) -> dict[str, torch.Tensor]:
        """Backward through the step's micro-batches; loss per supervised weight, tokens and measured sums over ranks."""
        device, world = self.ranks.device, self.ranks.world
        torch.manual_seed(int(content_id(self.config.seed, step, self.ranks.rank)[:15], 16))
        micro = self.batches(step, self.ranks.rank, world)
        counts = torch.tensor(
            [sum(m.supervised for m in micro), sum(m.tokens for m in micro), len(micro)], device=device
        )
        most = counts[2].clone()
        if world > 1:
            torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
        self.ranks.sum(counts)
        total = counts[0].clamp(min=1.0)
        # A rank with fewer micro-batches runs empty passes: collectives must meet on every rank.
        padded: list[tuple[Any, float]] = [(m, 1.0) for m in micro]
        if len(padded) < int(most):
            spare = micro[0] if micro else self.batches(step, 0, world)[0]
            padded += [(spare, 0.0)] * (int(most) - len(padded))
        sums: dict[str, torch.Tensor] = {"loss": torch.zeros((), device=device)}
        for i, (batch, share) in enumerate(padded):
            with gradients_stay_local(self.model, local=i + 1 < len(padded)):
                with torch.autocast(device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
                    loss, found = self.model(batch.to(device), measure)
                (loss * (share * world / total)).backward()
            sums["loss"] += loss.detach() * share
            for name, value in found.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value * share
        for name in sorted(sums):
            self.ranks.sum(sums[name])
        return {**sums, "loss": sums["loss"] / total, "tokens": counts[1]}

    def not_finite(self, step: int) -> None:
        """No step was taken. Three in a row: reload the last checkpoint and go on past the window."""
        self.state.skipped += 1
        self.state.bad_in_row += 1
        print(f"step {step + 1}: loss or gradient not finite, step left out", file=sys.stderr)
        if self.metrics:
            self.metrics.log(step + 1, {"not_finite": 1.0})
        if self.state.bad_in_row < BAD_STEPS:
            return
        at, skipped, reloads = self.state.step, self.state.skipped, self.state.reloads + 1
        found = newest_checkpoint(self.config.out / "checkpoints", self.record)
        if found is None or reloads > RELOADS:
            raise StorageError(
                f"step {step + 1}", f"{self.state.bad_in_row} steps in a row that are not finite",
                "finite loss and gradient", "lower --learning-rate, or look at the rows of these steps",
            )  # fmt: skip
        load_whole_state(self.model, self.optimizer, found[1]["model"], found[1]["optimizer"])
        self.state = State(at, self.state.tokens, skipped, 0, reloads)

    def log(self, loss: float, norm: float, rate: float, sums: dict[str, torch.Tensor]) -> None:
        self.losses.append(loss)
        if not self.metrics:
            return
        now, done = time.perf_counter(), self.state.step - self.clock_step
        speed = (self.state.tokens - self.clock_tokens) / max(now - self.clock, 1e-9)
        left = (now - self.clock) / max(done, 1) * (self.batches.steps - self.state.step)
        values = {"loss": loss, "grad_norm": norm, "learning_rate": rate, "num_tokens": self.state.tokens}
        values["epoch"] = self.batches.epoch(self.state.step)
        measured = {name: pair.tolist() for name, pair in sums.items() if name not in ("loss", "tokens")}
        values |= {name: total / count for name, (total, count) in measured.items() if count}
        self.metrics.log(self.state.step, values)
        self.progress.show(self.state.step, {**values, "tokens_per_second": speed}, left)
        self.clock, self.clock_step, self.clock_tokens = now, self.state.step, self.state.tokens

    def save(self) -> None:
        """A checkpoint of this step (every rank takes part; the first writes)."""
        weights, moments = whole_state(self.model, self.optimizer)
        if self.ranks.first:
            assert self.metrics is not None
            carried = {
                "tokens": self.state.tokens,
                "skipped": self.state.skipped,
                "metrics_bytes": self.metrics.bytes(),
            }
            state = {"model": weights, "optimizer": moments}
            root = self.config.out / "checkpoints"
            save_checkpoint(root, self.state.step, state, {**self.record, **carried}, self.config.keep)
        self.ranks.wait()

    def told_to_stop(self) -> bool:
        """Whether any rank got a signal: all stop at the same step."""
        if self.ranks.world == 1:
            return self.stop
        flag = torch.tensor([float(self.stop)], device=self.ranks.device)
        return bool(self.ranks.sum(flag) > 0)

    def stop_signals(self) -> "StopSignals":
        return StopSignals(self._stop)

    def _stop(self) -> None:
        self.stop = True


class StopSignals:
    """While open, SIGTERM and SIGINT ask for a stop at the end of the step instead of tearing it."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self.tell = tell

    def __enter__(self) -> None:
        import threading

        self.old = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self.old[number] = signal.signal(number, lambda *_: self.tell())

    def __exit__(self, *_: object) -> None:
        for number, handler in self.old.items():
            signal.signal(number, handler)
