"""Reward model: one number per answer, trained so that chosen answers score above rejected ones (Bradley–Terry).

thresher train reward --model M --data runs/x/dpo --out runs/x/rm
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import nn

from curation.pair_source import read_pairs
from curation.stage import Outcome
from training.config import TrainConfig
from training.data import Batches
from training.distributed import Ranks
from training.forward import Forward
from training.losses import average
from training.models import inner, load_reward_model, without_dropout
from training.pairs import PairBatch, PairExample, check_sharing, encode_pairs, pack_pairs, unshared
from training.trainer import Method, TrainResult, train_by


@dataclass(frozen=True)
class RewardConfig(TrainConfig):
    learning_rate: float = 1e-4  # peak
    use_margin: bool = False  # ask for a difference of at least the row's margin (Llama 2)
    center: float = 0.0  # times the squared sum of both scores: keeps them around zero; 0.01 is usual
    share_prefix: bool = True  # compute what both sides begin with once


class RewardModule(nn.Module):
    """A sequence classifier with one output over a PairBatch. The score is read at a sequence's last token, found by
    its length, never by a padding id: the end-of-turn token is seen even where it pads too."""

    def __init__(self, model: Any, config: RewardConfig) -> None:
        super().__init__()
        without_dropout(model)
        self.run = Forward(model, has_vocabulary=False)
        self.config = config
        check_sharing(config.share_prefix, self.run.packs)

    def scores(self, batch: PairBatch) -> torch.Tensor:
        """(2B,): chosen and rejected in turn."""
        scores: torch.Tensor = inner(self.run.model).score(self.run.hidden(batch.rows, batch.last, batch.last))[:, 0]
        return scores.float() if scores.dtype in (torch.bfloat16, torch.float16) else scores

    def forward(self, batch: PairBatch, measure: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        scores = self.scores(batch)
        chosen, rejected = scores.view(-1, 2).unbind(1)
        margins = batch.margins if self.config.use_margin else torch.zeros_like(batch.margins)
        losses = reward_loss(chosen, rejected, margins + batch.offsets, self.config.center)
        return (losses * batch.weights).sum(), _measured(scores, chosen, rejected) if measure else {}


def reward_loss(chosen: torch.Tensor, rejected: torch.Tensor, margins: torch.Tensor, center: float) -> torch.Tensor:
    """−log σ(chosen − rejected − margin) + center·(chosen + rejected)², per pair.

    Bradley & Terry 1952; margins as in Llama 2 (arXiv 2307.09288), centering as in Eisenstein et al. (arXiv 2312.09244).
    """
    losses = -F.logsigmoid(chosen - rejected - margins)
    return losses + center * (chosen + rejected) ** 2 if center else losses


def _measured(scores: torch.Tensor, chosen: torch.Tensor, rejected: torch.Tensor) -> dict[str, torch.Tensor]:
    """TRL's metrics, each as (sum, count); least and largest are of a micro-batch."""
    return {
        "accuracy": average(chosen > rejected), "margin": average(chosen - rejected), "mean_reward": average(scores),
        "min_reward": average(scores.min()), "max_reward": average(scores.max()),
    }  # fmt: skip


def _encode(tokenizer: Any, rows: pa.Table, config: RewardConfig) -> tuple[list[PairExample], Outcome]:
    examples, account = encode_pairs(tokenizer, rows, config.max_length)
    return examples if config.share_prefix else unshared(examples), account


def _batches(
    module: RewardModule, examples: Sequence[PairExample], config: RewardConfig, steps: int, group: Ranks
) -> Batches:
    return Batches(
        examples, config.batch_size, steps, config.seed, config.shuffle, config.micro_tokens, pack=pack_pairs
    )


METHOD: Method[RewardConfig] = Method(
    kind="reward", task="SEQ_CLS", read=read_pairs, encode=_encode, load=load_reward_model, module=RewardModule,
    batches=_batches,
)  # fmt: skip


def train(config: RewardConfig, model: Any = None) -> TrainResult:
    """Train and leave a model folder in `config.out`; see `train_by`."""
    return train_by(METHOD, config, model)
