"""Supervised fine-tuning on curated shards: the assistant's tokens are taught, nothing else.

thresher train sft --model M --data runs/x/sft --out runs/x/model
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from curation.errors import InputError
from curation.schema import content_id
from training.attention import head_is_all, use_document_attention
from training.data import Batches, Example, MicroBatch, check_examples, encode
from training.distributed import Parallel, Ranks, ranks
from training.loop import FitResult, LoopConfig, Precision, fit
from training.losses import logits_nll, weighted_nll
from training.optimizer import Schedule


@dataclass(frozen=True)
class SFTConfig:
    model: str  # folder or Hub id of the start
    data: str  # shard set, file, folder, glob or Hub id with messages
    out: str  # where checkpoint, metrics.jsonl and the trained model go
    epochs: float = 3.0  # passes over the data
    steps: int | None = None  # optimizer steps; overrides epochs
    batch_size: int = 8  # rows per optimizer step, over all ranks
    micro_tokens: int = 16384  # tokens of one forward pass; a step is cut into as many as it needs
    micro_rows: int = 8  # rows of one forward pass where packing is off
    packing: bool = True  # cut a step by tokens instead of by rows
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


class SFTResult(NamedTuple):
    checkpoint: Path
    fit: FitResult
    dropped: dict[str, int]  # rows left out, by reason


class SFTModule(nn.Module):
    """A causal language model as the loop wants it: micro-batch in, summed loss out."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        refuse_virtual_tokens(model)
        self.model = model
        self.packs = use_document_attention(inner(model))
        self.plain_head = head_is_all(inner(model))

    def forward(self, batch: MicroBatch, measure: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        if not self.plain_head:  # scaled or capped logits: the model makes them itself, at the same positions
            return logits_nll(self.logits(batch), batch.targets, batch.weights, measure)
        hidden = self.hidden(batch)
        return weighted_nll(hidden, inner(self.model).get_output_embeddings(), batch.targets, batch.weights, measure)

    def hidden(self, batch: MicroBatch) -> torch.Tensor:
        """Hidden states (N, H) at the positions that predict a taught token."""
        causal = inner(self.model)
        body = getattr(causal, causal.base_model_prefix)
        if self.packs:
            return body(**packed(batch)).last_hidden_state[0, batch.predict]
        ids, real = unpacked(batch)
        return body(input_ids=ids, use_cache=False).last_hidden_state[real][batch.predict]

    def logits(self, batch: MicroBatch) -> torch.Tensor:
        """The model's own logits (N, V) at the positions that predict a taught token."""
        causal = inner(self.model)
        if self.packs:
            return causal(**packed(batch), logits_to_keep=batch.predict).logits[0]
        ids, real = unpacked(batch)
        return causal(input_ids=ids, use_cache=False).logits[real][batch.predict]


def inner(model: Any) -> Any:
    """The transformers model inside a PEFT wrapper, or the model itself. Adapters stay in place within it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def refuse_virtual_tokens(model: Any) -> None:
    """Raises InputError for PEFT's prompt learning: its virtual tokens would be passed over."""
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        raise InputError(
            "model", "a PEFT model with virtual tokens", "adapters inside the model, such as LoRA",
            "train prompt-learning models with PEFT's own tools",
        )  # fmt: skip


def packed(batch: MicroBatch) -> dict[str, Any]:
    """What a model with document attention is called with."""
    shape = {"runs": batch.runs, "bounds": batch.bounds}
    return {"input_ids": batch.ids, "position_ids": batch.positions, "use_cache": False, **shape}


def unpacked(batch: MicroBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """The packed row as a right-padded rectangle: ids (B, L) and which are real (B, L), in the same order.

    No mask goes to the model: nothing causal sees what stands to its right, and a query whose whole window is
    masked would be NaN.
    """
    pieces = batch.ids[0].split([length for _, count, length in batch.runs for _ in range(count)])
    ids = nn.utils.rnn.pad_sequence(list(pieces), batch_first=True)
    lengths = torch.tensor([len(p) for p in pieces], device=ids.device)
    return ids, torch.arange(ids.shape[1], device=ids.device)[None] < lengths[:, None]


def train(config: SFTConfig, model: Any = None) -> SFTResult:
    """Train and leave a model folder in `config.out`. `model` may be given in memory, e.g. a PEFT model.

    Raises InputError for a model or data that cannot be used, StorageError for a full disk.
    """
    from curation.source import read_messages

    read = read_messages(config.data)
    tokenizer = load_tokenizer(config.model)
    examples, account = encode(tokenizer, read.rows, config.max_length)
    check_examples(examples, account, config.data)
    dropped = {**read.reasons(), **account.reasons()}
    with ranks() as group:
        if group.first and dropped:
            print(f"left out {sum(dropped.values())} of {read.rows.num_rows + read.dropped.num_rows} rows: {dropped}")
        torch.manual_seed(config.seed)  # for what a model draws when it is made (a new head, adapters)
        trained = model if model is not None else load_model(config.model)
        if config.lora_rank:
            trained = with_adapters(trained, config)
        if config.gradient_checkpointing:
            trained.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        result = fit_examples(trained, examples, config, group)
        out = Path(config.out)
        if config.lora_rank and config.lora_merge and config.parallel == "ddp":
            if group.first:
                trained.save_pretrained(out / "adapter")
            trained = trained.merge_and_unload()
        save_model(trained, tokenizer, out, group)
        if group.first:
            write_lineage(out, config, examples, dropped, result)
        group.wait()
    return SFTResult(out, result, dropped)


def with_adapters(model: Any, config: SFTConfig) -> Any:
    """The model with fresh LoRA adapters (Hu et al. 2021), everything else frozen. Raises InputError."""
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as e:
        raise InputError("lora_rank", "peft not installed", "peft", "pip install 'thresher[peft]'") from e
    every = config.lora_targets == ("all-linear",)
    settings = LoraConfig(
        r=config.lora_rank, lora_alpha=config.lora_alpha, task_type="CAUSAL_LM",
        target_modules="all-linear" if every else list(config.lora_targets),
    )  # fmt: skip
    try:
        return get_peft_model(model, settings)
    except ValueError as e:
        names = ", ".join(config.lora_targets)
        raise InputError("lora_targets", names, "names of layers in the model", _first_line(e)) from e


def fit_examples(model: Any, examples: list[Example], config: SFTConfig, group: Ranks) -> FitResult:
    """The loop over encoded examples: what `train` does between reading and saving."""
    steps = config.steps if config.steps is not None else max(1, int(config.epochs * len(examples) / config.batch_size))
    batches = Batches(
        examples, config.batch_size, steps, config.seed, config.shuffle, config.micro_tokens, config.packing,
        config.micro_rows,
    )  # fmt: skip
    loop = LoopConfig(
        out=Path(config.out), learning_rate=config.learning_rate, schedule=config.schedule,
        warmup_steps=config.warmup_steps, weight_decay=config.weight_decay, max_grad_norm=config.max_grad_norm,
        seed=config.seed, precision=config.precision, parallel=config.parallel, save_every=config.save_every,
        keep=config.keep, log_every=config.log_every, trackers=config.trackers, resume=config.resume,
        data_sha=data_sha(examples),
    )  # fmt: skip
    model.train()
    return fit(SFTModule(model), batches, loop, group)


def data_sha(examples: list[Example]) -> str:
    """Hash of what is trained on: ids, targets and weights of every example, in order."""
    import hashlib

    digest = hashlib.sha256()
    for e in examples:
        digest.update(e.ids.tobytes() + e.taught.tobytes() + repr(e.weight).encode())
    return digest.hexdigest()


def load_tokenizer(model: str) -> Any:
    """The model's tokenizer. Raises InputError where there is none."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    except (OSError, ValueError) as e:
        raise InputError(
            f"model {model}", _first_line(e), "a folder or Hub id with a tokenizer", "check --model"
        ) from e


def load_model(model: str) -> Any:
    """The model's weights in fp32, from safetensors only. Raises InputError."""
    from transformers import AutoModelForCausalLM

    from curation.weights import hide_loading_bars

    hide_loading_bars()
    try:
        return AutoModelForCausalLM.from_pretrained(
            model, dtype=torch.float32, trust_remote_code=False, use_safetensors=True
        )
    except (OSError, ValueError) as e:
        raise InputError(
            f"model {model}", _first_line(e), "a folder or Hub id with safetensors", "check --model"
        ) from e


def save_model(model: Any, tokenizer: Any, out: Path, group: Ranks) -> None:
    """Model and tokenizer as a folder any engine loads. Sharded weights are gathered first (all ranks)."""
    state = None
    if group.world > 1:
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

        state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if not group.first:
        return
    inner(model).set_attn_implementation("sdpa")  # what is saved must load without this file
    model.save_pretrained(out, state_dict=state)
    tokenizer.save_pretrained(out)


def write_lineage(
    out: Path, config: SFTConfig, examples: list[Example], dropped: dict[str, int], fit: FitResult
) -> None:
    """thresher.json: what this checkpoint was trained on, for `thresher trace`."""
    from importlib.metadata import version

    record = {
        "kind": "sft", "data": str(Path(config.data).resolve()) if Path(config.data).exists() else config.data,
        "data_sha": data_sha(examples), "rows": len(examples), "dropped": dropped, "config": asdict(config),
        "steps": fit.steps, "skipped_steps": fit.skipped, "final_loss": fit.losses[-1] if fit.losses else None,
        "versions": {name: version(name) for name in ("thresher", "torch", "transformers")},
        "id": content_id(data_sha(examples), asdict(config)),
    }  # fmt: skip
    (out / "thresher.json").write_text(json.dumps(record, indent=1) + "\n")


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:200]
