"""Sampling in process beside transformers' generate: 256 prompts × 4 samples × 64 tokens of a 3.6 M-parameter Llama.

    python benchmarks/sampling.py [--runs 3]

Both sides: fp32, two threads, 256 sequences at once, prompts sorted by length, no end token, temperature 1. Ours keeps
log-probabilities; they are checked against a full forward.
"""

import argparse
import json
import random
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from transformers import AttentionInterface, LlamaConfig, LlamaForCausalLM

from curation.engine import Sampling
from curation.sampler import NAME, draw, sampler_attention

PROMPTS, SAMPLES, TOKENS, ROWS, VOCABULARY = 256, 4, 64, 256, 2048


def make_model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=256, intermediate_size=688, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=512, tie_word_embeddings=True, eos_token_id=None, bos_token_id=None,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def theirs(model: LlamaForCausalLM, prompts: list[list[int]]) -> int:
    made = 0
    ordered = sorted(prompts, key=len)
    size = ROWS // SAMPLES
    for start in range(0, len(ordered), size):
        batch = ordered[start : start + size]
        width = max(map(len, batch))
        ids = torch.tensor([[0] * (width - len(p)) + p for p in batch])
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in batch])
        with torch.inference_mode():
            out = model.generate(
                ids, attention_mask=mask, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, pad_token_id=0,
                num_return_sequences=SAMPLES, max_new_tokens=TOKENS, min_new_tokens=TOKENS,
            )  # fmt: skip
        made += out.shape[0] * (out.shape[1] - width)
    return made


def ours(model: LlamaForCausalLM, prompts: list[list[int]]) -> list:
    ordered = sorted(prompts, key=len)
    size, found = ROWS // SAMPLES, []
    for start in range(0, len(ordered), size):
        batch = ordered[start : start + size]
        seeds = [[SAMPLES * (start + i) + s for s in range(SAMPLES)] for i in range(len(batch))]
        found += zip(batch, draw(model, batch, seeds, Sampling(max_tokens=TOKENS), ()), strict=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(2)
    rng = random.Random(0)
    prompts = [[rng.randrange(3, VOCABULARY) for _ in range(rng.randint(25, 70))] for _ in range(PROMPTS)]
    model, plain = make_model(), make_model()
    AttentionInterface.register(NAME, sampler_attention)
    model.set_attn_implementation(NAME)
    times: dict[str, list[float]] = {"generate": [], "ours": []}
    for _ in range(given.runs + 1):  # in turn, so that both see the same machine; the first round warms up
        started = time.perf_counter()
        made = theirs(plain, prompts)
        times["generate"].append(time.perf_counter() - started)
        started = time.perf_counter()
        drawn = ours(model, prompts)
        times["ours"].append(time.perf_counter() - started)
    assert made == sum(len(d.tokens) for _, group in drawn for d in group) == PROMPTS * SAMPLES * TOKENS
    worst = 0.0
    for prompt, group in drawn[::32]:
        for one in group:
            with torch.inference_mode():
                logits = plain(torch.tensor([prompt + one.tokens])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            expected = logits[range(TOKENS), one.tokens]
            worst = max(worst, (expected - torch.tensor(one.logprobs)).abs().max().item())
    medians = {side: statistics.median(t[1:]) for side, t in times.items()}
    found = {
        "tokens": made, **{f"{side}_tokens_per_second": made / t for side, t in medians.items()},
        "ratio": statistics.median(a / b for a, b in zip(times["generate"][1:], times["ours"][1:], strict=True)),
        "logprob_difference": worst,
    }  # fmt: skip
    print(json.dumps(found, indent=1))
    Path(__file__).with_name("results").joinpath("sampling.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
