"""What a run costs over calling vLLM directly: the same prompts, samples and settings, real generation.

    .venv-vllm/bin/python benchmarks/vllm_overhead.py [--prompts 512]

Run in the environment `make test-vllm` makes. Direct: one llm.generate with token ids and n = K. Ours: the whole run,
journal, shards, hashes and publishing included. In turn, so that both see the same machine.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.update(VLLM_CPU_KVCACHE_SPACE="2", HF_HUB_OFFLINE="1", VLLM_LOGGING_LEVEL="ERROR", VLLM_NO_USAGE_STATS="1")

from curation.chat import encode_prompts
from curation.engine import Sampling
from curation.runner import run
from curation.sample import Sample
from curation.vllm_engine import VLLMEngine, _load, parameters
from tests.fakes import prompts, random_model

K, TOKENS = 4, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--prompts", type=int, default=512)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    asked = prompts(given.prompts)
    model = random_model(layers=6, kv_heads=4, hidden=256)  # heads of 64, as vLLM's CPU kernels want them
    engine = VLLMEngine(str(model), dtype="float32", max_model_len=256, max_num_seqs=128, eager=True)
    llm, tokenizer, _ = _load(engine.identity(), engine)
    times: dict[str, list[float]] = {"direct": [], "run": []}
    for seed in range(given.runs + 1):  # the first round warms up
        sampling = Sampling(max_tokens=TOKENS, seed=seed)
        started = time.perf_counter()
        ids = encode_prompts(tokenizer, asked.rows["prompt"].to_pylist(), [None] * given.prompts)
        settings = [parameters(sampling, p, range(K)) for p in asked.rows["prompt_id"].to_pylist()]
        llm.generate([{"prompt_token_ids": i} for i in ids], settings, use_tqdm=False)
        times["direct"].append(time.perf_counter() - started)
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            stages = [Sample(engine, k=K, max_tokens=TOKENS, seed=seed)]
            run({"candidates": stages}, asked, Path(folder), shard_prompts=given.prompts, quiet=True)
            times["run"].append(time.perf_counter() - started)
    ratios = [b / a for a, b in zip(times["direct"][1:], times["run"][1:], strict=True)]
    found = {
        "samples": given.prompts * K,
        **{k: v[1:] for k, v in times.items()},
        "overhead": statistics.median(ratios) - 1,
    }
    print(json.dumps(found, indent=1))
    Path(__file__).with_name("results").joinpath("vllm_overhead.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
