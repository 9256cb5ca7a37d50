"""SFT of a random-init Qwen3-0.6B-shaped model in bf16 on one GPU, packed, beside TRL's packed run where it is installed.

    python benchmarks/sft_gpu.py [--trl-python PYTHON]      on a GPU
    python benchmarks/sft_gpu.py --tiny                     the same path on CPU with a small model, to prove it runs

Prints tokens per second, the share of the measured bf16 matmul peak (6 · body parameters · tokens +
6 · head parameters · supervised tokens, attention left out), and
the ratio to TRL. fp32 weights and bf16 autocast on both sides, 16 rows of up to 1,024 tokens a step.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
STEPS, WARM_UP, ROWS, LONGEST = 20, 5, 16, 1024


def shape(tiny: bool) -> dict:
    full = {
        "vocab_size": 151936, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
        "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
    }  # fmt: skip
    small = {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
             "num_key_value_heads": 1, "head_dim": 64}  # fmt: skip
    return full | (small if tiny else {})


def make_model(tiny: bool):
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    return Qwen3ForCausalLM(Qwen3Config(**shape(tiny)))


def make_rows(n: int, vocabulary: int) -> list[dict[str, list[int]]]:
    """Lengths log-normal around 400, a quarter of each row supervised."""
    import numpy as np

    rng = np.random.default_rng(1)
    rows = []
    for length in np.clip(rng.lognormal(np.log(400), 0.6, n), 32, LONGEST).astype(int):
        ids = rng.integers(3, vocabulary, length)
        cut = 3 * length // 4
        rows.append({"input_ids": ids.tolist(), "labels": [-100] * cut + ids[cut:].tolist()})
    return rows


def matmul_peak(device) -> float:
    """bf16 FLOP/s of an 8192³ product (512³ on CPU)."""
    import torch

    n = 8192 if device.type == "cuda" else 512
    a = torch.randn(n, n, device=device, dtype=torch.bfloat16)
    best = float("inf")
    for _ in range(10):
        wait(device)
        started = time.perf_counter()
        a @ a
        wait(device)
        best = min(best, time.perf_counter() - started)
    return 2 * n**3 / best


def wait(device) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize()


def ours(tiny: bool, out: Path) -> dict:
    import numpy as np

    from training.data import Batches, Example
    from training.distributed import ranks
    from training.loop import LoopConfig, fit
    from training.sft import SFTModule

    rows = make_rows(STEPS * ROWS, shape(tiny)["vocab_size"])
    examples = [Example("", np.array(r["input_ids"]), np.array(r["labels"]) != -100) for r in rows]
    batches = Batches(examples, ROWS, STEPS, shuffle=False, micro_tokens=16384)
    model = make_model(tiny).train()
    head = model.get_output_embeddings().weight.numel()
    body = sum(p.numel() for p in model.model.parameters()) - model.get_input_embeddings().weight.numel()
    ends: list[float] = []

    with ranks() as group:

        class Clocked:
            steps = STEPS

            def __call__(self, step: int, rank: int, world: int) -> list:
                wait(group.device)
                ends.append(time.perf_counter())
                return batches(step, rank, world)

        result = fit(
            SFTModule(model), Clocked(), LoopConfig(out, 2e-5, precision="bf16", log_every=1000, resume=False), group
        )
        wait(group.device)
        ends.append(time.perf_counter())
        peak = matmul_peak(group.device)
        device = str(group.device)
    tokens = sum(len(examples[i].ids) for step in range(WARM_UP, STEPS) for i in batches.rows(step))
    taught = sum(int(examples[i].taught.sum()) for step in range(WARM_UP, STEPS) for i in batches.rows(step))
    seconds = ends[-1] - ends[WARM_UP]
    return {
        "device": device, "body_parameters": body, "tokens_per_second": tokens / seconds, "losses": result.losses,
        "matmul_peak": peak, "share_of_peak": 6 * (body * tokens + head * taught) / seconds / peak,
    }  # fmt: skip


def trl(tiny: bool, out: Path) -> dict:
    import torch
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    core = Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 1, "<unk>": 2}, unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>", pad_token="<pad>", unk_token="<unk>")
    ends, tokens = [], []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_, **__):
            torch.cuda.is_available() and torch.cuda.synchronize()
            ends.append(time.perf_counter())

    class Counted(SFTTrainer):
        def training_step(self, model, inputs, *rest, **named):
            tokens.append(inputs["input_ids"].numel())
            return super().training_step(model, inputs, *rest, **named)

    settings = SFTConfig(
        output_dir=str(out), max_steps=STEPS, per_device_train_batch_size=8, packing=True, max_length=LONGEST, bf16=True,
        gradient_checkpointing=False, use_cpu=not torch.cuda.is_available(), report_to="none", save_strategy="no",
        disable_tqdm=True, logging_steps=1000, seed=0,
    )  # fmt: skip
    data = Dataset.from_list(make_rows(4 * STEPS * ROWS, shape(tiny)["vocab_size"]))
    Counted(
        model=make_model(tiny), args=settings, processing_class=tokenizer, train_dataset=data, callbacks=[Clock()]
    ).train()
    return {"tokens_per_second": sum(tokens[WARM_UP:-1]) / (ends[-1] - ends[WARM_UP])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trl-python")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--side", choices=("trl", "ours"), default="ours")
    given = parser.parse_args()
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        found = (trl if given.side == "trl" else ours)(given.tiny, Path(folder))
    if given.side == "trl":
        print("\n" + json.dumps(found))
        return
    if given.trl_python:
        command = [given.trl_python, __file__, "--side", "trl", *(["--tiny"] if given.tiny else [])]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
        found["trl_tokens_per_second"] = json.loads(out.strip().splitlines()[-1])["tokens_per_second"]
        found["ratio"] = found["tokens_per_second"] / found["trl_tokens_per_second"]
    print(json.dumps(found, indent=1))
    if not given.tiny:
        (ROOT / "benchmarks/results/sft_gpu.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
