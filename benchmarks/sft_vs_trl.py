"""SFT beside TRL 1.16.0: the same model, rows and steps in one run; losses, weights, speed and peak memory compared.

    make bench                                           everything, or by hand:
    python benchmarks/sft_vs_trl.py --trl-python benchmarks/.venv-trl/bin/python [--case padded-4k] [--steps 20]

A case runs TRL first, in its own environment and process, and keeps the batches it saw. Our trainer then replays
those batches (same rows, same order, same accumulation) from the same initial weights. Gradient checkpointing is off
on both sides, fp32, two threads. Where packing is off our trainer still lays the same rows side by side: that is
what `packing=False` users get too, cut by rows.
"""

import itertools
import resource
import time
from pathlib import Path

from beside_trl import main

CASES = {
    "padded-4k": {"vocabulary": 4096, "rows": 8, "accumulation": 1, "packing": False},
    "padded-4k-accumulated": {"vocabulary": 4096, "rows": 2, "accumulation": 4, "packing": False},
    "packed-4k": {"vocabulary": 4096, "rows": 2, "accumulation": 1, "packing": True},
    "packed-4k-accumulated": {"vocabulary": 4096, "rows": 1, "accumulation": 4, "packing": True},
    "padded-32k": {"vocabulary": 32768, "rows": 8, "accumulation": 1, "packing": False},
}
RATE = 2e-4  # ten times TRL's default: rounding shows in the weights sooner


def make_rows(n: int, vocabulary: int) -> list[dict[str, list[int]]]:
    """Prompts four times as long as completions, completions of 12 to 128 tokens (log-normal around 42)."""
    import numpy as np

    rng = np.random.default_rng(1)
    rows = []
    for length in np.clip(rng.lognormal(np.log(42), 0.45, n), 12, 128).astype(int):
        ids = rng.integers(3, vocabulary, 5 * length)
        rows.append({"input_ids": ids.tolist(), "labels": [-100] * (4 * length) + ids[4 * length :].tolist()})
    return rows


def make_model(vocabulary: int):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary, hidden_size=256, intermediate_size=688, num_hidden_layers=4, num_attention_heads=4,
            num_key_value_heads=4, max_position_embeddings=2048, eos_token_id=1, pad_token_id=0, bos_token_id=None,
            tie_word_embeddings=True, attention_dropout=0.0,
        )
    )  # fmt: skip


def trl_side(case: dict, steps: int, folder: Path) -> dict:
    """TRL's SFTTrainer; leaves batches.pt and weights.pt in `folder`."""
    import torch
    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    vocabulary = {"<pad>": 0, "<eos>": 1, "<unk>": 2, **{f"w{i}": i for i in range(3, case["vocabulary"])}}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>", pad_token="<pad>", unk_token="<unk>")
    seen, losses, ends = [], [], []

    class Recorded(SFTTrainer):
        def training_step(self, model, inputs, *rest, **named):
            seen.append({k: v.clone() for k, v in inputs.items() if torch.is_tensor(v)})
            loss = super().training_step(model, inputs, *rest, **named)
            losses.append(loss.item())
            return loss

    class Clock(TrainerCallback):
        def on_step_end(self, *_, **__):
            ends.append(time.perf_counter())

    settings = SFTConfig(
        output_dir=str(folder / "trl"), max_steps=steps, per_device_train_batch_size=case["rows"],
        gradient_accumulation_steps=case["accumulation"], packing=case["packing"], max_length=1024,
        learning_rate=RATE, lr_scheduler_type="linear", warmup_steps=0, gradient_checkpointing=False, bf16=False,
        use_cpu=True, report_to="none", save_strategy="no", logging_steps=10, disable_tqdm=True, seed=0,
        train_sampling_strategy="sequential",
    )  # fmt: skip
    trainer = Recorded(
        model=make_model(case["vocabulary"]), args=settings, processing_class=tokenizer,
        train_dataset=Dataset.from_list(make_rows(2000, case["vocabulary"])), callbacks=[Clock()],
    )  # fmt: skip
    trainer.train()
    torch.save(seen, folder / "batches.pt")
    torch.save(trainer.model.state_dict(), folder / "weights.pt")
    window = case["accumulation"]
    return {
        "losses": [sum(losses[i : i + window]) for i in range(0, len(losses), window)],
        "seconds": [b - a for a, b in itertools.pairwise(ends)],
    }


def our_side(case: dict, steps: int, folder: Path) -> dict:
    """Our loop over the batches TRL saw, in fp32 and, as the judge of both, in fp64."""
    import torch

    from training.data import pack
    from training.distributed import ranks
    from training.loop import LoopConfig, fit
    from training.sft import SFTModule

    micro = [pack(documents(batch)) for batch in torch.load(folder / "batches.pt", weights_only=True)]
    ends = []

    class Replay:
        """The recorded batches as a plan."""

        def __init__(self) -> None:
            self.steps = steps

        def __call__(self, step: int, rank: int, world: int) -> list:
            ends.append(time.perf_counter())
            return micro[step * case["accumulation"] : (step + 1) * case["accumulation"]]

    losses = []
    weights = {"trl": torch.load(folder / "weights.pt", weights_only=True)}
    # Once to compare every loss, once to time it as TRL is timed, once in double precision.
    for name, log_every, dtype in (
        ("every", 1, torch.float32),
        ("ours", 10, torch.float32),
        ("fp64", 20, torch.float64),
    ):
        model = make_model(case["vocabulary"]).to(dtype).train()
        config = LoopConfig(folder / name, RATE, log_every=log_every, resume=False)
        if name != "fp64":
            ends.clear()
        with ranks() as group:
            result = fit(SFTModule(model), Replay(), config, group)
        weights[name] = model.state_dict()
        losses = losses or result.losses
        if name == "ours":
            ends.append(time.perf_counter())
            seconds = [b - a for a, b in itertools.pairwise(ends)][1:]
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    def apart(a: str, b: str) -> float:
        return max((weights[a][k].double() - weights[b][k].double()).abs().max().item() for k in weights["trl"])

    return {
        "losses": losses, "seconds": seconds, "peak_mib": peak, "weight_difference": apart("ours", "trl"),
        "weight_difference_to_fp64": {"ours": apart("ours", "fp64"), "trl": apart("trl", "fp64")},
    }  # fmt: skip


def documents(batch: dict) -> list:
    """The documents of a recorded batch: padded rows by their mask, a packed row by its restarting positions."""
    import numpy as np

    from training.data import Example

    found = []
    if "position_ids" in batch and "attention_mask" not in batch:
        starts = [*(batch["position_ids"][0] == 0).nonzero().flatten().tolist(), batch["input_ids"].shape[1]]
        parts = [(0, slice(a, b)) for a, b in itertools.pairwise(starts)]
    else:
        parts = [(i, slice(0, int(m.sum()))) for i, m in enumerate(batch["attention_mask"])]
    for row, span in parts:
        ids, labels = batch["input_ids"][row, span].numpy(), batch["labels"][row, span].numpy()
        taught = labels != -100
        taught[:1] = False
        found.append(Example("", ids.astype(np.int64), taught))
    return found


if __name__ == "__main__":
    main(
        __file__, CASES, {"trl": trl_side, "ours": our_side},
        lambda trl, ours: {"weight_difference_to_fp64": ours["weight_difference_to_fp64"]},
    )  # fmt: skip
