"""DPO and reward training beside TRL 1.16.0: the same model, pairs and steps in one run.

    make bench                                           everything, or by hand:
    python benchmarks/preference_vs_trl.py --trl-python benchmarks/.venv-trl/bin/python [--case dpo-4k] [--steps 20]
    ... --case dpo-gpu                                   on a GPU (dpo-gpu-tiny: the same path on any machine)

A case runs TRL first, in its own environment and process, and keeps the batches it saw. Our trainer then replays them
from the same initial weights: same pairs, same order, prompts of 256 and completions of 64 tokens, 4 pairs a step, fp32,
two threads, gradient checkpointing off on both sides. Ours shares prefixes, and once more does not, to show that both
give the same losses. Our reference log-probabilities are computed before the first step; unless the case says that both
sides have them beforehand, that time is added to our steps.
"""

import itertools
import resource
import time
from pathlib import Path

from beside_trl import apart, main
from sft_gpu import make_model as make_qwen3
from sft_gpu import wait

CASES = {
    "dpo-4k": {"method": "dpo", "vocabulary": 4096},
    "dpo-32k": {"method": "dpo", "vocabulary": 32768},
    "dpo-cached-4k": {"method": "dpo", "vocabulary": 4096, "cached": True},
    "dpo-cached-32k": {"method": "dpo", "vocabulary": 32768, "cached": True},
    "reward-4k": {"method": "reward", "vocabulary": 4096},
}
ON_GPU = {  # Qwen3-0.6B's shape in bf16; the tiny one runs anywhere, to prove the path
    "dpo-gpu": {"method": "dpo", "vocabulary": 151936, "qwen3": "full", "pairs": 8, "prompt": 1024, "completion": 256},
    "dpo-gpu-tiny": {"method": "dpo", "vocabulary": 512, "qwen3": "tiny", "pairs": 4, "prompt": 64, "completion": 16},
}
PAIRS, PROMPT, COMPLETION = 4, 256, 64  # where a case does not say
RATE = 2e-5  # twenty times TRL's default for DPO
BETA = 0.1


def size(case: dict) -> tuple[int, int, int]:
    """Pairs a step, tokens of a prompt, tokens of a completion."""
    return case.get("pairs", PAIRS), case.get("prompt", PROMPT), case.get("completion", COMPLETION)


def make_rows(n: int, case: dict) -> list[dict[str, str]]:
    import numpy as np

    _, prompt, completion = size(case)

    rng = np.random.default_rng(1)

    def words(k: int) -> str:
        return " ".join(f"w{i}" for i in rng.integers(4, case["vocabulary"], k))

    return [
        {"prompt": words(prompt) + " ", "chosen": words(completion - 1), "rejected": words(completion - 1)}
        for _ in range(n)
    ]


def make_model(case: dict):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

    if "qwen3" in case:
        return make_qwen3(case["qwen3"] == "tiny")
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
            wait(device)
            ends.append(time.perf_counter())

    device, pairs = torch.device("cuda" if torch.cuda.is_available() else "cpu"), size(case)[0]
    more = {"beta": BETA, "precompute_ref_log_probs": bool(case.get("cached"))} if case["method"] == "dpo" else {}
    settings = settings_class(
        output_dir=str(folder / "trl"), max_steps=steps, per_device_train_batch_size=pairs, max_length=2048,
        learning_rate=RATE, lr_scheduler_type="linear", warmup_steps=0, gradient_checkpointing=False, bf16="qwen3" in case,
        use_cpu=device.type == "cpu", report_to="none", save_strategy="no", logging_steps=10, disable_tqdm=True, seed=0,
        train_sampling_strategy="sequential", **more,
    )  # fmt: skip
    model = make_model(case)
    if case["method"] == "dpo":
        model.save_pretrained(folder / "start")  # TRL loads its reference by name
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(folder / "start", dtype=torch.float32)
    rows = make_rows(max(pairs * steps, 64), case)
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
    return {"losses": losses, "seconds": [b - a for a, b in itertools.pairwise(ends)], **peak(device)}


def peak(device) -> dict:
    """What the process, or on a GPU its tensors, held at most so far."""
    import torch

    if device.type == "cuda":
        return {"peak_mib": torch.cuda.max_memory_allocated() / 2**20}
    return {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def our_side(case: dict, steps: int, folder: Path) -> dict:
    """Our loop over the batches TRL saw: once shared and timed, once logging every step, once unshared."""
    import torch

    weights = {}
    batches = torch.load(folder / "batches.pt", weights_only=True, map_location="cpu")
    recorded = [pairs_of(batch, size(case)[1]) for batch in batches]
    found: dict = {}
    for name, share, log_every in (("ours", True, 10), ("every", True, 1), ("plain", False, 1)):
        model, losses, ends, before = one_run(case, recorded, steps, folder / name, share, log_every)
        weights[name] = {k: v.cpu() for k, v in model.state_dict().items()}
        found[name] = losses
        if name == "ours":
            found["seconds"] = [b - a for a, b in itertools.pairwise(ends)][1:]
            found["reference_seconds_a_step"] = before / steps
            found |= peak(next(model.parameters()).device)

    weights["trl"] = torch.load(folder / "weights.pt", weights_only=True, map_location="cpu")

    def between(a: str, b: str) -> float:
        return max((weights[a][k].double() - weights[b][k].double()).abs().max().item() for k in weights["trl"])

    return {
        "losses": found["every"], "plain_losses": found["plain"], "seconds": found["seconds"],
        "peak_mib": found["peak_mib"], "reference_seconds_a_step": found["reference_seconds_a_step"],
        "weight_difference": between("every", "trl"), "plain_weight_difference": between("plain", "trl"),
        **({"gradient_difference": gradient_difference(case, recorded[0])} if "qwen3" in case else {}),
    }  # fmt: skip


def gradient_difference(case: dict, pairs: list) -> float:
    """|shared − unshared| / |unshared| of all gradients of one step, in the precision the case trains in."""
    import torch

    from training.distributed import ranks
    from training.dpo import DPOConfig, DPOModule
    from training.pairs import pack_pairs, unshared

    found = []
    with ranks() as group:
        module = DPOModule(make_model(case).train(), DPOConfig("", "", "", beta=BETA, loss="simpo")).to(group.device)
        for given in (pairs, unshared(pairs)):
            with torch.autocast(group.device.type, torch.bfloat16):
                loss, _ = module(pack_pairs(given, given).to(group.device), False)
            loss.backward()
            found.append(torch.cat([p.grad.flatten().float().cpu() for p in module.parameters()]))
            module.zero_grad()
    return float((found[0] - found[1]).norm() / found[1].norm())


def one_run(case: dict, recorded: list, steps: int, out: Path, share: bool, log_every: int):
    """(trained model, losses, when steps began and the last ended, seconds of the reference pass)."""
    from training.distributed import ranks
    from training.dpo import DPOConfig, DPOModule
    from training.loop import LoopConfig, fit
    from training.pairs import pack_pairs, unshared
    from training.reference import reference_logps, with_reference
    from training.reward import RewardConfig, RewardModule

    model, ends, before = make_model(case).train(), [], 0.0
    pairs, prompt, completion = size(case)
    precision = "bf16" if "qwen3" in case else "fp32"
    recorded = recorded if share else [unshared(step) for step in recorded]
    with ranks() as group:
        if case["method"] == "dpo":
            config = DPOConfig(
                "", "", "", beta=BETA, share_prefix=share, micro_tokens=pairs * (prompt + 2 * completion),
                precision=precision,
            )  # fmt: skip
            module = DPOModule(model, config).to(group.device)
            flat = [pair for step in recorded for pair in step]
            began = time.perf_counter()
            found = reference_logps(module.run, flat, config, group)
            wait(group.device)
            before = 0.0 if case.get("cached") else time.perf_counter() - began
            known = iter(with_reference(flat, dict(enumerate(found))))
            recorded = [[next(known) for _ in step] for step in recorded]
        else:
            module = RewardModule(model, RewardConfig("", "", "", share_prefix=share)).to(group.device)
        micro = [[pack_pairs(step, step)] for step in recorded]

        class Replay:
            def __init__(self) -> None:
                self.steps = steps

            def __call__(self, step: int, rank: int, world: int) -> list:
                wait(group.device)
                ends.append(time.perf_counter())
                return micro[step]

            def epoch(self, step: int) -> float:
                return step / steps

        result = fit(
            module, Replay(), LoopConfig(out, RATE, log_every=log_every, resume=False, precision=precision), group
        )
        wait(group.device)
        ends.append(time.perf_counter())
    return model, result.losses, ends, before


def pairs_of(batch: dict, prompts: int | list[int]) -> list:
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
        prompt = prompts if isinstance(prompts, int) else prompts[i % n]
        sides.append(Example("", ids, taught if taught is not None else np.arange(length) >= prompt))
    found = []
    for chosen, rejected in zip(sides[:n], sides[n:], strict=True):
        shared = min(common_prefix(chosen.ids.tolist(), rejected.ids.tolist()), chosen.tokens - 1, rejected.tokens - 1)
        found.append(PairExample("", chosen, rejected, shared))
    return found


def more(trl: dict, ours: dict) -> dict:
    return {
        "our_reference_s_of_it": ours["reference_seconds_a_step"],
        "loss_difference_unshared": apart(trl["losses"], ours["plain_losses"]),
        "weight_difference_unshared": ours["plain_weight_difference"],
        **({"gradient_difference_unshared": ours["gradient_difference"]} if "gradient_difference" in ours else {}),
    }


if __name__ == "__main__":
    main(__file__, CASES, {"trl": trl_side, "ours": our_side}, more, by_name=ON_GPU)
