"""DPO and reward training beside TRL 1.16.0: the same model, pairs and steps in one run.

    make bench                                           everything, or by hand:
    python benchmarks/preference_vs_trl.py --trl-python benchmarks/.venv-trl/bin/python [--case dpo-4k] [--steps 20]

A case runs TRL first, in its own environment and process, and keeps the batches it saw. Our trainer then replays them
from the same initial weights: same pairs, same order, prompts of 256 and completions of 64 tokens, 4 pairs a step, fp32,
two threads, gradient checkpointing off on both sides. Ours shares prefixes, and once more does not, to show that both
give the same losses. Our reference log-probabilities are computed before the first step; unless the case says that both
sides have them beforehand, that time is added to our steps.
"""

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CASES = {
    "dpo-4k": {"method": "dpo", "vocabulary": 4096},
    "dpo-32k": {"method": "dpo", "vocabulary": 32768},
    "dpo-cached-4k": {"method": "dpo", "vocabulary": 4096, "cached": True},
    "dpo-cached-32k": {"method": "dpo", "vocabulary": 32768, "cached": True},
    "reward-4k": {"method": "reward", "vocabulary": 4096},
}
PAIRS, PROMPT, COMPLETION = 4, 256, 64
WARM_UP = 4
RATE = 2e-5  # twenty times TRL's default for DPO
BETA = 0.1


def make_rows(n: int, vocabulary: int) -> list[dict[str, str]]:
    import numpy as np

    rng = np.random.default_rng(1)

    def words(k: int) -> str:
        return " ".join(f"w{i}" for i in rng.integers(4, vocabulary, k))

    return [
        {"prompt": words(PROMPT) + " ", "chosen": words(COMPLETION - 1), "rejected": words(COMPLETION - 1)}
        for _ in range(n)
    ]


def make_model(case: dict):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=case["vocabulary"], hidden_size=256, intermediate_size=688, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=1024, tie_word_embeddings=True,
        pad_token_id=0, bos_token_id=None, eos_token_id=1, num_labels=1,
    )  # fmt: skip
    return (LlamaForCausalLM if case["method"] == "dpo" else LlamaForSequenceClassification)(config)


def trl_side(case: dict, steps: int, folder: Path) -> dict:
    """TRL's trainer; leaves batches.pt and weights.pt in `folder`."""
    import torch
    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, TrainerCallback
    from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer

    vocabulary = {"<pad>": 0, "<eos>": 1, "<unk>": 2, **{f"w{i}": i for i in range(3, case["vocabulary"])}}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>", pad_token="<pad>", unk_token="<unk>")
    seen, losses, ends = [], [], []
    base, settings_class = (DPOTrainer, DPOConfig) if case["method"] == "dpo" else (RewardTrainer, RewardConfig)

    class Recorded(base):
        def training_step(self, model, inputs, *rest, **named):
            seen.append({k: v.clone() for k, v in inputs.items() if torch.is_tensor(v)})
            loss = super().training_step(model, inputs, *rest, **named)
            losses.append(loss.item())
            return loss

    class Clock(TrainerCallback):
        def on_step_end(self, *_, **__):
            ends.append(time.perf_counter())

    more = {"beta": BETA, "precompute_ref_log_probs": bool(case.get("cached"))} if case["method"] == "dpo" else {}
    settings = settings_class(
        output_dir=str(folder / "trl"), max_steps=steps, per_device_train_batch_size=PAIRS, max_length=1024,
        learning_rate=RATE, lr_scheduler_type="linear", warmup_steps=0, gradient_checkpointing=False, bf16=False,
        use_cpu=True, report_to="none", save_strategy="no", logging_steps=10, disable_tqdm=True, seed=0,
        train_sampling_strategy="sequential", **more,
    )  # fmt: skip
    model = make_model(case)
    if case["method"] == "dpo":
        model.save_pretrained(folder / "start")  # TRL loads its reference by name
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(folder / "start", dtype=torch.float32)
    rows = make_rows(max(PAIRS * steps, 64), case["vocabulary"])
    trainer = Recorded(
        model=model,
        args=settings,
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(rows),
        callbacks=[Clock()],
    )
    trainer.train()
    torch.save(seen, folder / "batches.pt")
    torch.save(trainer.model.state_dict(), folder / "weights.pt")
    return {"losses": losses, "seconds": [b - a for a, b in itertools.pairwise(ends)]}


def our_side(case: dict, steps: int, folder: Path) -> dict:
    """Our loop over the batches TRL saw: once shared and timed, once logging every step, once unshared."""
    import torch

    weights = {"trl": torch.load(folder / "weights.pt", weights_only=True)}
    recorded = [pairs_of(batch) for batch in torch.load(folder / "batches.pt", weights_only=True)]
    found: dict = {}
    for name, share, log_every in (("ours", True, 10), ("every", True, 1), ("plain", False, 1)):
        model, losses, ends, before = one_run(case, recorded, steps, folder / name, share, log_every)
        weights[name] = model.state_dict()
        found[name] = losses
        if name == "ours":
            found["seconds"] = [b - a for a, b in itertools.pairwise(ends)][1:]
            found["reference_seconds_a_step"] = before / steps
            found["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    def apart(a: str, b: str) -> float:
        return max((weights[a][k].double() - weights[b][k].double()).abs().max().item() for k in weights["trl"])

    return {
        "losses": found["every"], "plain_losses": found["plain"], "seconds": found["seconds"],
        "peak_mib": found["peak_mib"], "reference_seconds_a_step": found["reference_seconds_a_step"],
        "weight_difference": apart("every", "trl"), "plain_weight_difference": apart("plain", "trl"),
    }  # fmt: skip


def one_run(case: dict, recorded: list, steps: int, out: Path, share: bool, log_every: int):
    """(trained model, losses, when steps began and the last ended, seconds of the reference pass)."""
    import torch

    from training.distributed import ranks
    from training.dpo import DPOConfig, DPOModule
    from training.loop import LoopConfig, fit
    from training.pairs import pack_pairs, unshared
    from training.reference import reference_logps, with_reference
    from training.reward import RewardConfig, RewardModule

    model, ends, before = make_model(case).train(), [], 0.0
    recorded = recorded if share else [unshared(step) for step in recorded]
    with ranks() as group:
        if case["method"] == "dpo":
            config = DPOConfig(
                "", "", "", beta=BETA, share_prefix=share, micro_tokens=PAIRS * (PROMPT + 2 * COMPLETION)
            )
            module = DPOModule(model, config)
            flat = [pair for step in recorded for pair in step]
            began = time.perf_counter()
            found = reference_logps(module.run, flat, config, group)
            before = 0.0 if case.get("cached") else time.perf_counter() - began
            known = iter(with_reference(flat, dict(enumerate(found))))
            recorded = [[next(known) for _ in step] for step in recorded]
        else:
            module = RewardModule(model, RewardConfig("", "", "", share_prefix=share))
        micro = [[pack_pairs(step, step)] for step in recorded]

        class Replay:
            def __init__(self) -> None:
                self.steps = steps

            def __call__(self, step: int, rank: int, world: int) -> list:
                ends.append(time.perf_counter())
                return micro[step]

            def epoch(self, step: int) -> float:
                return step / steps

        result = fit(module, Replay(), LoopConfig(out, RATE, log_every=log_every, resume=False), group)
        ends.append(time.perf_counter())
    assert torch.is_tensor(next(iter(model.state_dict().values())))
    return model, result.losses, ends, before


def pairs_of(batch: dict, prompts: list[int] | None = None) -> list:
    """The pairs of a recorded batch: [all chosen; all rejected], right-padded. A reward batch does not say where
    prompts end: there they are `prompts` tokens long."""
    import numpy as np

    from curation.chat import common_prefix
    from training.data import Example
    from training.pairs import PairExample

    n = len(batch["input_ids"]) // 2
    sides = []
    for i in range(2 * n):
        length = int(batch["attention_mask"][i].sum())
        taught = batch["completion_mask"][i, :length].numpy().astype(bool) if "completion_mask" in batch else None
        ids = batch["input_ids"][i, :length].numpy().astype(np.int64)
        prompt = prompts[i % n] if prompts else PROMPT
        sides.append(Example("", ids, taught if taught is not None else np.arange(length) >= prompt))
    found = []
    for chosen, rejected in zip(sides[:n], sides[n:], strict=True):
        shared = min(common_prefix(chosen.ids.tolist(), rejected.ids.tolist()), chosen.tokens - 1, rejected.tokens - 1)
        found.append(PairExample("", chosen, rejected, shared))
    return found


def child(side: str, name: str, steps: int, folder: Path) -> None:
    """One side of one case; its figures as the last line of stdout."""
    import torch

    torch.set_num_threads(2)
    found = (trl_side if side == "trl" else our_side)(CASES[name], steps, folder)
    found.setdefault("peak_mib", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    print("\n" + json.dumps(found))


def compare(name: str, steps: int, trl_python: str) -> dict:
    """Both sides of a case, each in a process of its own."""
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false", "TRL_EXPERIMENTAL_SILENCE": "1",
    }  # fmt: skip
    sides = {}
    with tempfile.TemporaryDirectory() as folder:
        for side, python in (("trl", trl_python), ("ours", sys.executable)):
            command = [python, __file__, "--side", side, "--case", name, "--steps", str(steps), "--folder", folder]
            out = subprocess.run(
                command, env=environment, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            ).stdout
            sides[side] = json.loads(out.strip().splitlines()[-1])
    trl, ours = sides["trl"], sides["ours"]
    step = {side: statistics.median(found["seconds"][WARM_UP:]) for side, found in sides.items()}
    step["ours"] += ours["reference_seconds_a_step"]

    def apart(losses: list[float]) -> float:
        return max(abs(a - b) for a, b in zip(trl["losses"], losses, strict=True))

    return {
        "case": name, "steps": steps, "trl_step_s": step["trl"], "our_step_s": step["ours"],
        "our_reference_s_of_it": ours["reference_seconds_a_step"], "speed_ratio": step["trl"] / step["ours"],
        "trl_peak_mib": trl["peak_mib"], "our_peak_mib": ours["peak_mib"],
        "memory_share": ours["peak_mib"] / trl["peak_mib"], "loss_difference": apart(ours["losses"]),
        "loss_difference_unshared": apart(ours["plain_losses"]), "weight_difference": ours["weight_difference"],
        "weight_difference_unshared": ours["plain_weight_difference"],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trl-python", default=str(ROOT / "benchmarks/.venv-trl/bin/python"))
    parser.add_argument("--case", choices=CASES)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--side", choices=("trl", "ours"))
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    if given.side:
        child(given.side, given.case, given.steps, given.folder)
        return
    results = []
    for name in [given.case] if given.case else CASES:
        found = compare(name, given.steps, given.trl_python)
        results.append(found)
        print(
            f"{name:14} {found['trl_step_s']:.3f} s -> {found['our_step_s']:.3f} s  {found['speed_ratio']:.2f}x   "
            f"{found['trl_peak_mib']:.0f} -> {found['our_peak_mib']:.0f} MiB   loss {found['loss_difference']:.1e} "
            f"({found['loss_difference_unshared']:.1e} unshared)  weights {found['weight_difference']:.1e}",
            flush=True,
        )
    if not given.case:
        (ROOT / "benchmarks/results/preference_vs_trl.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
