"""One way through every training: read, encode, load, fit, save, lineage. A method says what differs."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import nn

from curation.schema import content_id
from curation.stage import Outcome
from training.config import TrainConfig
from training.data import Batches, check_examples, data_sha
from training.distributed import Ranks, ranks
from training.loop import FitResult, LoopConfig, fit
from training.models import load_tokenizer, save_model, with_adapters

C = TypeVar("C", bound=TrainConfig)


class TrainResult(NamedTuple):
    checkpoint: Path
    fit: FitResult
    dropped: dict[str, int]  # rows left out, by reason


@dataclass(frozen=True)
class Method(Generic[C]):
    """What a trainer is made of, beside its losses. `module` gives what the loop calls; `batches` what it sees."""

    kind: str  # its name in lineage and on the command line
    task: str  # PEFT's name for it
    read: Callable[[str], Outcome]  # the data a spec names
    encode: Callable[[Any, Any, C], tuple[list[Any], Outcome]]  # tokenizer, rows → examples, account
    load: Callable[[str], Any]
    module: Callable[[Any, C], nn.Module]
    batches: Callable[[Any, Sequence[Any], C, int, Ranks], Batches]  # … of so many steps


def train_by(method: Method[C], config: C, model: Any = None) -> TrainResult:
    """Train and leave a model folder in `config.out`. `model` may be given in memory, e.g. a PEFT model.

    Raises InputError for a model or data that cannot be used, StorageError for a full disk.
    """
    read = method.read(config.data)
    tokenizer = load_tokenizer(config.model)
    examples, account = method.encode(tokenizer, read.rows, config)
    check_examples(examples, account, config.data)
    dropped = {**read.reasons(), **account.reasons()}
    with ranks() as group:
        if group.first and dropped:
            print(f"left out {sum(dropped.values())} of {read.rows.num_rows + read.dropped.num_rows} rows: {dropped}")
        torch.manual_seed(config.seed)  # for what a model draws when it is made (a new head, adapters)
        trained = model if model is not None else method.load(config.model)
        if config.lora_rank:
            trained = with_adapters(trained, config, method.task)
        if config.gradient_checkpointing:
            trained.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        result = fit_examples(method, trained, examples, config, group)
        out = Path(config.out)
        if config.lora_rank and config.lora_merge and config.parallel == "ddp":
            if group.first:
                trained.save_pretrained(out / "adapter")
            trained = trained.merge_and_unload()
        save_model(trained, tokenizer, out, group)
        if group.first:
            write_lineage(method.kind, out, config, examples, dropped, result)
        group.wait()
    return TrainResult(out, result, dropped)


def fit_examples(method: Method[C], model: Any, examples: list[Any], config: C, group: Ranks) -> FitResult:
    """The loop over encoded examples: what `train_by` does between reading and saving."""
    steps = config.steps if config.steps is not None else max(1, int(config.epochs * len(examples) / config.batch_size))
    model.train()
    module = method.module(model, config).to(group.device)
    batches = method.batches(module, examples, config, steps, group)
    loop = LoopConfig(
        out=Path(config.out), learning_rate=config.learning_rate, schedule=config.schedule,
        warmup_steps=config.warmup_steps, weight_decay=config.weight_decay, max_grad_norm=config.max_grad_norm,
        seed=config.seed, precision=config.precision, parallel=config.parallel, save_every=config.save_every,
        keep=config.keep, log_every=config.log_every, trackers=config.trackers, resume=config.resume,
        data_sha=data_sha(examples),
    )  # fmt: skip
    return fit(module, batches, loop, group)


def write_lineage(
    kind: str, out: Path, config: TrainConfig, examples: Sequence[Any], dropped: dict[str, int], fit: FitResult
) -> None:
    """thresher.json: what this checkpoint was trained on, for `thresher trace`."""
    from importlib.metadata import version

    sha = data_sha(examples)
    record = {
        "kind": kind, "data": str(Path(config.data).resolve()) if os.path.exists(config.data) else config.data,
        "data_sha": sha, "rows": len(examples), "dropped": dropped, "config": asdict(config),
        "steps": fit.steps, "skipped_steps": fit.skipped, "final_loss": fit.losses[-1] if fit.losses else None,
        "versions": {name: version(name) for name in ("thresher", "torch", "transformers")},
        "id": content_id(sha, asdict(config)),
    }  # fmt: skip
    (out / "thresher.json").write_text(json.dumps(record, indent=1) + "\n")
