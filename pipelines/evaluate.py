"""`thresher eval`: how well a model answers prompts that have a truth.

Greedy with K = 1 gives accuracy; K samples give pass@1, pass@K (unbiased) and maj@K. The interval is a bootstrap over
prompts, since the K answers of one prompt are not independent.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curation.durable import Disk, put
from curation.errors import InputError
from curation.pass_at_k import majority_vote, mean_pass_at_k, solved
from curation.rewards import reward_by_name
from curation.sample import Sample
from curation.score import Score
from pipelines.models import EngineKind, engine_for

RESAMPLES = 1000


@dataclass(frozen=True)
class EvalConfig:
    model: str  # folder, Hub id, URL#MODEL of a server, toy:base or toy:teacher
    prompts: str  # file, folder, glob, shard set, Hub id or toy:TASK, with a truth per prompt
    out: str | None = None  # where the figures go, as JSON
    reward: str = "math"  # exact, numeric, math, format:REGEX or module:function
    engine: EngineKind = "auto"  # what runs the model
    k: int = 1  # answers per prompt
    temperature: float | None = None  # default: greedy for k = 1, else 1.0
    top_p: float = 1.0  # nucleus; 1 = off
    max_tokens: int = 512  # new tokens per answer
    limit: int | None = None  # the first so many prompts only
    seed: int = 0  # of the sampling and the bootstrap
    api_key_env: str | None = None  # name of the environment variable with an endpoint's key


def evaluate(config: EvalConfig, prompts: pa.Table | None = None) -> dict[str, Any]:
    """The figures as a dict, written to `config.out` if given. `prompts`: rows to use instead of reading them."""
    rows = prompts if prompts is not None else read_heldout(config)
    engine = engine_for(config.model, config.engine, config.api_key_env)
    temperature = config.temperature if config.temperature is not None else (0.0 if config.k == 1 else 1.0)
    sample = Sample(
        engine, k=config.k, temperature=temperature, top_p=config.top_p, max_tokens=config.max_tokens, seed=config.seed
    )
    candidates = sample(rows)
    if candidates.rows.num_rows == 0:
        raise InputError("eval", f"no answer ({candidates.reasons()})", "an answer per prompt", "look at the reasons")
    scored = Score(reward_by_name(config.reward))(candidates.rows).rows
    found = {
        "model": engine.identity(),
        "settings": {k: v for k, v in asdict(config).items() if k != "out"} | {"temperature": temperature},
        "prompts": rows.num_rows,
        "unanswered": candidates.dropped.num_rows,
        **figures(scored, config.k, config.seed),
        "tasks": {
            str(task): figures(scored.filter(pa.compute.equal(scored["task"], task)), config.k, config.seed)
            for task in sorted({t for t in scored["task"].to_pylist() if t})
        },
    }
    if config.out:
        Path(config.out).parent.mkdir(parents=True, exist_ok=True)
        put(Disk(), Path(config.out), (json.dumps(found, indent=1, sort_keys=True) + "\n").encode())
    return found


def read_heldout(config: EvalConfig) -> pa.Table:
    """The prompts a config names: toy prompts from the held-out side, or a file. Raises InputError."""
    if config.prompts.startswith("toy:"):
        from pipelines.toy import toy_prompts

        return toy_prompts(config.prompts.removeprefix("toy:"), "heldout", config.limit or 300, config.seed)
    from curation.source import read_prompts

    read = read_prompts(config.prompts, limit=config.limit)
    if read.rows.num_rows == 0 or read.rows["ground_truth"].null_count == read.rows.num_rows:
        raise InputError(
            config.prompts, f"{read.rows.num_rows} usable prompts, none with a truth", "prompts with a ground truth",
            "add a ground_truth or answer column",
        )  # fmt: skip
    return read.rows


def figures(scored: pa.Table, k: int, seed: int) -> dict[str, float]:
    """accuracy (= pass@1), its 95 % interval, pass@k and maj@k, shares of cut and of unjudged answers."""
    counts = np.array([(n, c) for n, c in solved(scored).values() if n], dtype=float).reshape(-1, 2)
    rates = counts[:, 1] / counts[:, 0]
    accuracy = float(rates.mean()) if len(rates) else float("nan")
    found = {"accuracy": accuracy, "pass@1": accuracy, **_interval(rates, seed)}
    if k > 1:
        votes = majority_vote(scored)
        found[f"pass@{k}"] = mean_pass_at_k(scored, k)
        found[f"maj@{k}"] = float(np.mean(list(votes.values()))) if votes else float("nan")
    scores = scored["score"].to_numpy()
    found["truncated"] = float(np.mean([r == "length" for r in scored["finish_reason"].to_pylist()]))
    found["no_verdict"] = float(np.mean(np.isnan(scores)))
    found["mean_tokens"] = float(np.mean([t or 0 for t in scored["completion_tokens"].to_pylist()]))
    return found


def _interval(rates: np.ndarray, seed: int) -> dict[str, float]:
    """The middle 95 % of the means of RESAMPLES draws of prompts with replacement."""
    if len(rates) < 2:
        return {}
    rng = np.random.default_rng(seed)
    means = [rates[rng.integers(0, len(rates), len(rates))].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return {"low": float(low), "high": float(high)}


def report(found: Mapping[str, Any]) -> str:
    """The figures as lines a person reads."""
    shown = [f"{found['model']}  {found['prompts']} prompts"]
    interval = f"  ({found['low']:.3f} to {found['high']:.3f})" if "low" in found else ""
    for name, value in found.items():
        if isinstance(value, float) and name not in ("low", "high", "accuracy"):
            shown.append(f"{name:12} {value:.3f}{interval if name == 'pass@1' else ''}")
    return "\n".join(shown)
