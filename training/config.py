"""The settings every trainer has; each trainer adds its own and sets the defaults of its method."""

from dataclasses import dataclass

from training.distributed import Parallel
from training.loop import Precision
from training.optimizer import Schedule


@dataclass(frozen=True)
class TrainConfig:
    model: str  # folder or Hub id of the start
    data: str  # shard set, file, folder, glob or Hub id
    out: str  # where checkpoint, metrics.jsonl and the trained model go
    epochs: float = 1.0  # passes over the data
    steps: int | None = None  # optimizer steps; overrides epochs
    batch_size: int = 8  # rows per optimizer step, over all ranks
    micro_tokens: int = 16384  # tokens of one forward pass; a step is cut into as many as it needs
    max_length: int = 1024  # longer rows are left out and counted, never cut
    learning_rate: float = 2e-5  # peak
    schedule: Schedule = "linear"  # after the warm-up: to zero, half a cosine, or constant
    warmup_steps: int = 0  # linear from zero
    weight_decay: float = 0.0  # AdamW's
    max_grad_norm: float = 1.0  # clipping; 0 = off
    precision: Precision = "fp32"  # bf16 = autocast over fp32 weights
    gradient_checkpointing: bool = False  # less memory, about a fifth slower
    lora_rank: int = 0  # train adapters of this rank (needs peft); 0 = all weights
    lora_alpha: float = 32.0  # adapters count alpha/rank
    lora_targets: tuple[str, ...] = ("all-linear",)  # names of the layers that get adapters
    lora_merge: bool = True  # leave whole weights that any engine loads, the adapter beside them
    parallel: Parallel = "ddp"  # how ranks of torchrun share the work
    shuffle: bool = True  # a new order per epoch, from the seed
    seed: int = 0  # of order and dropout
    save_every: int = 0  # steps between checkpoints; 0 = only when interrupted
    keep: int = 2  # checkpoints kept
    log_every: int = 10  # steps between lines of metrics
    trackers: tuple[str, ...] = ()  # tensorboard, wandb, trackio
    resume: bool = True  # go on from the newest whole checkpoint in out
