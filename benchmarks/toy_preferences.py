"""What preference training does to the toy base, three seeds: identity, on-policy DPO and the other recipes.

    python benchmarks/toy_preferences.py [--seeds 3] [--only identity]

Each seed samples its own pairs from the base with a shipped recipe, trains on them and measures greedy accuracy on
held-out prompts. `others` are all held-out prompts of the other tasks together.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from curation.runner import run
from curation.stage import Outcome
from pipelines import correction_dpo, identity, instruction_following, multilingual, on_policy_dpo, safety
from pipelines.evaluate import EvalConfig, evaluate
from pipelines.toy import toy_model, toy_prompts
from training.dpo import DPOConfig, train

ROOT = Path(__file__).resolve().parents[1]
REWARDS = {
    "sums": "math",
    "identity": "format:(?s).*Athene.*",
    "instructions": "exact",
    "languages": "exact",
    "safety": "refusal",
}
OTHERS = "sums+instructions+languages+safety"
GENTLE = {"learning_rate": 1e-4, "sft_weight": 1.0}
RECIPES = {  # recipe, its prompts (of each task), the task it is for, and how to train on its pairs
    "identity": (identity, f"identity+{OTHERS}", 900, "identity", {**GENTLE, "epochs": 4.0}),
    "on_policy_dpo": (on_policy_dpo, "sums", 3000, "sums", {**GENTLE, "epochs": 2.0, "sft_weight": 0.5}),
    "correction_dpo": (correction_dpo, "sums", 3000, "sums", {**GENTLE, "epochs": 2.0, "sft_weight": 0.5}),
    "multilingual": (multilingual, "languages", 300, "languages", {**GENTLE, "epochs": 8.0}),
    "instruction_following": (instruction_following, "instructions", 300, "instructions", {**GENTLE, "epochs": 4.0}),
    "safety": (safety, "safety", 300, "safety", {**GENTLE, "epochs": 4.0}),
}  # fmt: skip


def measure(model: str) -> dict[str, float]:
    """Greedy held-out accuracy by task, and of all tasks but identity together."""
    found, right, asked = {}, 0.0, 0
    for task, reward in REWARDS.items():
        prompts = toy_prompts(task, "heldout", 600, 0)
        config = EvalConfig(model=model, prompts=f"toy:{task}", reward=reward, max_tokens=64)
        found[task] = evaluate(config, prompts)["accuracy"]
        if task != "identity":
            right, asked = right + found[task] * prompts.num_rows, asked + prompts.num_rows
    return {**found, "others": right / asked}


def one(name: str, seed: int, out: Path) -> dict[str, float]:
    """Figures after training on the pairs of one recipe and seed, and how many pairs there were."""
    recipe, tasks, n, _, settings = RECIPES[name]
    prompts = Outcome(toy_prompts(tasks, "train", n, seed))
    k = {"k": 4} if name == "identity" else {}
    lists = recipe.pipelines(recipe.Settings(seed=seed, max_tokens=64, **k))
    made = run({"dpo": lists["dpo"]}, prompts, out / "run", quiet=True).published["dpo"]
    config = DPOConfig(
        model=str(toy_model("base")), data=str(made), out=str(out / "model"), seed=seed, batch_size=16, max_length=256,
        log_every=1000, **settings,
    )  # fmt: skip
    result = train(config)
    return {"steps": result.fit.steps, **measure(str(result.checkpoint))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", choices=RECIPES)
    given = parser.parse_args()
    results: dict = {"base": measure(str(toy_model("base")))}
    print("base", {k: round(v, 3) for k, v in results["base"].items()}, flush=True)
    for name in [given.only] if given.only else RECIPES:
        found = []
        for seed in range(given.seeds):
            with tempfile.TemporaryDirectory() as folder:
                found.append(one(name, seed, Path(folder)))
        results[name] = found
        task = RECIPES[name][3]
        values = [f[task] for f in found]
        others = [f["others"] - results["base"]["others"] for f in found]
        print(
            f"{name:22} {task}: {results['base'][task]:.3f} -> {statistics.fmean(values):.3f} "
            f"({min(values):.3f} to {max(values):.3f})   others {', '.join(f'{o:+.3f}' for o in others)}",
            flush=True,
        )
    if not given.only:
        (ROOT / "benchmarks/results/toy_preferences.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
