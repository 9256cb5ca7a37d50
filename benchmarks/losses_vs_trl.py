"""Every preference loss beside TRL 1.16.0 in float64: one batch, the loss and every parameter's gradient compared.

    python benchmarks/losses_vs_trl.py --trl-python benchmarks/.venv-trl/bin/python

The policy is moved away from its reference first, so that nothing compared is zero. Answers differ in length. SimPO is
not among TRL's losses; its test is the paper's formula (tests/test_preference_losses.py).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VOCABULARY, PAIRS = 128, 4
LOSSES: dict[str, dict] = {  # by TRL's names, "+sft" with weight 0.5
    "sigmoid": {}, "hinge": {}, "ipo": {}, "robust": {"label_smoothing": 0.1}, "apo_zero": {}, "apo_down": {},
    "sigmoid_norm": {}, "sigmoid+sft": {}, "reward": {}, "reward+margin+center": {},
}  # fmt: skip


def make_model(reward: bool, seed: int):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=128, tie_word_embeddings=False, pad_token_id=0, bos_token_id=None, eos_token_id=1,
        num_labels=1, initializer_range=0.2,
    )  # fmt: skip
    return (LlamaForSequenceClassification if reward else LlamaForCausalLM)(config).double()


def rows() -> list[dict]:
    import numpy as np

    rng = np.random.default_rng(3)

    def words(n: int) -> str:
        return " ".join(f"w{i}" for i in rng.integers(4, VOCABULARY, n))

    return [
        {"prompt": words(9 + i) + " ", "chosen": words(5 + 2 * i), "rejected": words(8 - i), "margin": 0.3 * i}
        for i in range(PAIRS)
    ]


def trl_side(name: str, folder: Path) -> dict:
    """TRL's loss and gradients; leaves batch.pt and grads.pt."""
    import torch
    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer

    vocabulary = {"<pad>": 0, "<eos>": 1, "<unk>": 2, **{f"w{i}": i for i in range(3, VOCABULARY)}}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>", pad_token="<pad>", unk_token="<unk>")
    reward = name.startswith("reward")
    found: dict = {}

    class Recorded(RewardTrainer if reward else DPOTrainer):  # type: ignore[misc]
        def training_step(self, model, inputs, *rest, **named):
            loss = super().training_step(model, inputs, *rest, **named)
            torch.save({k: v.clone() for k, v in inputs.items() if torch.is_tensor(v)}, folder / "batch.pt")
            torch.save({k: p.grad.clone() for k, p in model.named_parameters()}, folder / "grads.pt")
            found["loss"] = loss.item()
            return loss

    more: dict = {"center_rewards_coefficient": 0.01} if "center" in name else {}
    if not reward:
        more = {"beta": 0.1, "loss_type": name.split("+"), **LOSSES[name]}
        if "+" in name:
            more["loss_weights"] = [1.0, 0.5]
    settings = (RewardConfig if reward else DPOConfig)(
        output_dir=str(folder / "trl"), max_steps=1, per_device_train_batch_size=PAIRS, gradient_checkpointing=False,
        bf16=False, use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True, max_grad_norm=0.0, seed=0,
        train_sampling_strategy="sequential", **more,
    )  # fmt: skip
    data = [r if "margin" in name else {k: r[k] for k in ("prompt", "chosen", "rejected")} for r in rows()]
    given = {} if reward else {"ref_model": make_model(False, seed=1)}
    Recorded(
        model=make_model(reward, seed=0), args=settings, processing_class=tokenizer,
        train_dataset=Dataset.from_list(data), **given,
    ).train()  # fmt: skip
    return found


def our_side(name: str, folder: Path) -> dict:
    """Our loss and gradients on TRL's batch, with shared prefixes and without."""
    import dataclasses

    import torch
    from preference_vs_trl import pairs_of

    from training.distributed import ranks
    from training.dpo import DPOConfig, DPOModule
    from training.pairs import pack_pairs, unshared
    from training.reference import reference_logps, with_reference
    from training.reward import RewardConfig, RewardModule

    reward = name.startswith("reward")
    pairs = pairs_of(torch.load(folder / "batch.pt", weights_only=True), [9 + i for i in range(PAIRS)])
    wanted = torch.load(folder / "grads.pt", weights_only=True)
    found: dict = {"gradient": 0.0, "largest": max(g.abs().max().item() for g in wanted.values())}
    for share in (True, False):
        pairs = pairs if share else unshared(pairs)
        model = make_model(reward, seed=0)
        if reward:
            margin = "margin" in name
            module = RewardModule(model, RewardConfig("", "", "", use_margin=margin, center=0.01 if margin else 0.0))
            pairs = [dataclasses.replace(p, margin=0.3 * i) for i, p in enumerate(pairs)]
        else:
            settings = {"loss": name.split("+")[0], "sft_weight": 0.5 if "+" in name else 0.0, **LOSSES[name]}
            module = DPOModule(model, DPOConfig("", "", "", **settings))
            start = DPOModule(make_model(False, seed=1), DPOConfig("", "", ""))
            with ranks() as group:
                known = reference_logps(start.run, pairs, DPOConfig("", "", ""), group)
            pairs = with_reference(pairs, dict(enumerate(known)))
        batch = pack_pairs(pairs, pairs)
        loss = module(batch, False)[0] / batch.supervised
        loss.backward()
        found["loss" if share else "plain_loss"] = loss.item()
        apart = [(p.grad - wanted[k]).abs().max().item() for k, p in model.named_parameters()]
        found["gradient"] = max(found["gradient"], *apart)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trl-python", default=str(ROOT / "benchmarks/.venv-trl/bin/python"))
    parser.add_argument("--side", choices=("trl", "ours"))
    parser.add_argument("--name")
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    if given.side:
        print("\n" + json.dumps((trl_side if given.side == "trl" else our_side)(given.name, given.folder)))
        return
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    results = []
    for name in LOSSES:
        with tempfile.TemporaryDirectory() as folder:
            sides = []
            for side, python in (("trl", given.trl_python), ("ours", sys.executable)):
                command = [python, __file__, "--side", side, "--name", name, "--folder", folder]
                done = subprocess.run(
                    command, env=environment, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
                )
                sides.append(json.loads(done.stdout.strip().splitlines()[-1]))
        trl, ours = sides
        off = max(abs(trl["loss"] - ours["loss"]), abs(trl["loss"] - ours["plain_loss"]))
        row = {"loss": name, "loss_difference": off, "gradient_difference": ours["gradient"]}
        results.append({**row, "largest_gradient": ours["largest"]})
        print(f"{name:22} loss {trl['loss']:.6f} differs {off:.1e}", end="   ")
        print(f"gradients (up to {ours['largest']:.2f}) {ours['gradient']:.1e}", flush=True)
    (ROOT / "benchmarks/results/losses_vs_trl.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
