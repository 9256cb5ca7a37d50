"""Supervised fine-tuning on curated shards: the assistant's tokens are taught, nothing else.

thresher train sft --model M --data runs/x/sft --out runs/x/model
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import torch
from torch import nn

from curation.source import read_messages
from curation.stage import Outcome
from training.config import TrainConfig
from training.data import Batches, Example, MicroBatch, encode
from training.distributed import Ranks
from training.forward import Forward
from training.losses import average
from training.models import load_model
from training.trainer import Method, TrainResult, train_by


@dataclass(frozen=True)
class SFTConfig(TrainConfig):
    epochs: float = 3.0  # passes over the data
    packing: bool = True  # cut a step by tokens instead of by rows
    micro_rows: int = 8  # rows of one forward pass where packing is off


class SFTModule(nn.Module):
    """A causal language model as the loop wants it: micro-batch in, summed loss out."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.run = Forward(model)

    def forward(self, batch: MicroBatch, measure: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        loss, seen = self.run.weighted_nll(batch, measure)
        return loss, {"entropy": average(seen.entropy), "mean_token_accuracy": average(seen.hit)} if seen else {}


def _encode(tokenizer: Any, rows: pa.Table, config: SFTConfig) -> tuple[list[Example], Outcome]:
    return encode(tokenizer, rows, config.max_length)


def _batches(module: nn.Module, examples: Sequence[Example], config: SFTConfig, steps: int, group: Ranks) -> Batches:
    return Batches(
        examples, config.batch_size, steps, config.seed, config.shuffle, config.micro_tokens, config.packing,
        config.micro_rows,
    )  # fmt: skip


METHOD: Method[SFTConfig] = Method(
    kind="sft", task="CAUSAL_LM", read=read_messages, encode=_encode, load=load_model,
    module=lambda model, config: SFTModule(model), batches=_batches,
)  # fmt: skip


def train(config: SFTConfig, model: Any = None) -> TrainResult:
    """Train and leave a model folder in `config.out`; see `train_by`."""
    return train_by(METHOD, config, model)
