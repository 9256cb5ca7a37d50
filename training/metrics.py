"""Where a trainer's numbers go: metrics.jsonl always, TensorBoard, W&B or Trackio where asked, a line on the terminal.

Names are TRL's (loss, grad_norm, learning_rate, num_tokens, entropy, mean_token_accuracy, epoch), so that boards made
for it keep working.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from curation.errors import InputError

TRACKERS = ("tensorboard", "wandb", "trackio")


class Sink(Protocol):
    def log(self, step: int, values: Mapping[str, float]) -> None: ...
    def close(self) -> None: ...


class Metrics:
    """All sinks of a run. On resume the JSONL is cut back to the lines the checkpoint knew."""

    def __init__(self, folder: Path, trackers: Sequence[str], settings: Mapping[str, Any], keep_bytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "metrics.jsonl"
        self.path.touch()
        os.truncate(self.path, min(keep_bytes, self.path.stat().st_size))
        self.file = self.path.open("a", encoding="utf-8")
        self.sinks: list[Sink] = [_sink(name, folder, settings) for name in trackers]

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.file.write(json.dumps({"step": step, **values}) + "\n")
        self.file.flush()
        for sink in self.sinks:
            sink.log(step, values)

    def bytes(self) -> int:
        """Length of the JSONL so far, which a checkpoint records."""
        return self.path.stat().st_size

    def close(self) -> None:
        self.file.close()
        for sink in self.sinks:
            sink.close()


class TensorBoardSink:
    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder / "tensorboard"))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(f"train/{name}", value, step)

    def close(self) -> None:
        self.writer.close()


class RunSink:
    """W&B and Trackio: both have init(project, name, config), log and finish."""

    def __init__(self, library: Any, folder: Path, settings: Mapping[str, Any]) -> None:
        self.library = library
        library.init(project="thresher", name=folder.name, config=dict(settings))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.library.log({f"train/{k}": v for k, v in values.items()}, step=step)

    def close(self) -> None:
        self.library.finish()


def _sink(name: str, folder: Path, settings: Mapping[str, Any]) -> Sink:
    import importlib

    if name not in TRACKERS:
        raise InputError("trackers", name, ", ".join(TRACKERS), "name one of these")
    try:
        if name == "tensorboard":
            return TensorBoardSink(folder, settings)
        return RunSink(importlib.import_module(name), folder, settings)
    except ImportError as e:
        raise InputError("trackers", f"{name} not installed", name, f"pip install 'thresher[{name}]'") from e


class Progress:
    """One rewritten line on a terminal, a plain line now and then elsewhere; silent on ranks but the first."""

    def __init__(self, steps: int, quiet: bool) -> None:
        self.steps, self.quiet, self.live = steps, quiet, sys.stderr.isatty()

    def show(self, step: int, values: Mapping[str, float], seconds_left: float) -> None:
        if self.quiet:
            return
        named = "  ".join(f"{k} {values[k]:.4g}" for k in ("loss", "grad_norm", "learning_rate") if k in values)
        line = f"step {step}/{self.steps}  {named}  {values.get('tokens_per_second', 0):.0f} tok/s  {seconds_left:.0f} s left"
        end = "\n" if not self.live or step == self.steps else ""
        print(f"\r{line:100}" if self.live else line, end=end, file=sys.stderr, flush=True)
