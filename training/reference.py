"""Reference log-probabilities, computed once: as a stage that leaves them in the shard, or by the trainer at its start.

A trainer's reference is a snapshot of the weights it starts from, never a model loaded by name beside it. The key of
a cached value is a hash of weights and tokens: another model, template or text is another key.
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import pyarrow as pa
import torch

from curation.schema import REFERENCE, content_id
from curation.stage import Stage
from curation.weights import model_identity
from training.config import TrainConfig
from training.data import Batches
from training.distributed import Ranks
from training.forward import Forward
from training.models import load_model, load_tokenizer, without_dropout
from training.pairs import PairExample, encode_pairs, pack_pairs, unshared

ANY_LENGTH = 1 << 30


@dataclass(frozen=True)
class ReferenceLogprobs(Stage):
    """Write `ref_chosen_logps`, `ref_rejected_logps` (nats) and `ref_key` for every pair the tokenizer can encode."""

    reads: ClassVar = ("pair_id", "prompt", "chosen", "rejected")
    writes: ClassVar = tuple(name for name, _ in REFERENCE)
    key: ClassVar = "pair_id"
    carries: ClassVar = ("pair_id",)

    model: str  # folder or Hub id: what training will start from
    micro_tokens: int = 16384  # tokens of one forward pass

    def identity(self) -> str:
        """Weights as part of the cache key."""
        return model_identity(self.model)

    def __call__(self, rows: pa.Table) -> pa.Table:
        identity = self.identity()
        tokenizer, forward = _loaded(identity, self.model)
        examples, _ = encode_pairs(tokenizer, rows, ANY_LENGTH)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        config = TrainConfig(self.model, "", "", micro_tokens=self.micro_tokens)
        asked = examples if forward.packs else unshared(examples)
        found = reference_logps(forward.to(device), asked, config, Ranks(0, 1, device))
        known = {e.pair_id: (*v, reference_key(identity, e)) for e, v in zip(examples, found, strict=True)}
        columns = zip(*(known.get(i, (None, None, None)) for i in rows["pair_id"].to_pylist()), strict=True)
        for (name, kind), values in zip(REFERENCE, columns, strict=False):
            made = pa.array(values, kind)
            at = rows.column_names.index(name) if name in rows.column_names else None
            rows = rows.append_column(name, made) if at is None else rows.set_column(at, name, made)
        return rows


@lru_cache(maxsize=1)
def _loaded(identity: str, model: str) -> tuple[Any, Forward]:
    loaded = load_model(model)
    without_dropout(loaded)
    return load_tokenizer(model), Forward(loaded.eval())


@torch.no_grad()
def reference_logps(
    forward: Forward, examples: Sequence[PairExample], config: TrainConfig, group: Ranks
) -> list[tuple[float, float]]:
    """(chosen, rejected) log-probabilities (nats) of every example under the weights as they are, over all ranks."""
    if not examples:
        return []
    found = torch.zeros(len(examples), 2, dtype=torch.float64, device=group.device)
    numbered = [dataclasses.replace(e, pair_id=str(i)) for i, e in enumerate(examples)]
    # One "step" holds all pairs: the plan cuts it into passes of equal budget, longest first, and deals them to ranks.
    plan = Batches(
        numbered,
        len(numbered),
        1,
        shuffle=False,
        micro_tokens=config.micro_tokens,
        pack=lambda p, _: (p, pack_pairs(p, p)),
    )
    for part, batch in plan(0, group.rank, group.world):
        batch = batch.to(group.device)
        with torch.autocast(group.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            nll, _ = forward.nll(batch.rows, measure=False)
        logps = torch.zeros(2 * len(part), dtype=nll.dtype, device=nll.device).index_add(0, batch.owner, -nll)
        found[[int(e.pair_id) for e in part]] = logps.view(-1, 2).double()
    return [(chosen, rejected) for chosen, rejected in group.sum(found).tolist()]


def with_reference(examples: Sequence[PairExample], found: Mapping[int, tuple[float, float]]) -> list[PairExample]:
    """The examples with the log-probabilities of the rows in `found`."""
    return [dataclasses.replace(e, reference=found[i]) if i in found else e for i, e in enumerate(examples)]


def with_cached(examples: Sequence[PairExample], rows: pa.Table, model: str) -> list[PairExample]:
    """The examples with what the shard knows of them: values whose key is this model's."""
    names = ("pair_id", "ref_key", "ref_chosen_logps", "ref_rejected_logps")
    if not set(names) <= set(rows.column_names) or rows["ref_key"].null_count == rows.num_rows:
        return list(examples)
    identity = model_identity(model)
    known = {i: (k, c, r) for i, k, c, r in zip(*(rows[n].to_pylist() for n in names), strict=True)}
    fitting = {
        n: (known[e.pair_id][1], known[e.pair_id][2])
        for n, e in enumerate(examples)
        if e.pair_id in known and known[e.pair_id][0] == reference_key(identity, e)
    }
    return with_reference(examples, fitting)


def reference_key(identity: str, example: PairExample) -> str:
    """Content key of a pair's log-probabilities: weights and tokens."""
    tokens = hashlib.sha256(example.chosen.content() + b"|" + example.rejected.content()).hexdigest()
    return content_id("reference", identity, tokens)
