"""`thresher demo`: base → distilled → best-of-K on the toy world, three seeds, ending in a table, a plot and results.json.

Each seed draws its own training prompts and its own held-out prompts, samples, curates, trains and measures. The
base is measured on each seed's held-out prompts too, so that the gains are paired.
"""

import json
import statistics
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from curation.runner import run
from curation.stage import Outcome, Pipeline
from pipelines import best_of_k, distill, reasoning
from pipelines.evaluate import EvalConfig, evaluate
from pipelines.toy import toy_model, toy_prompts
from training.sft import SFTConfig, train

STUDENTS = ("distilled", "best-of-K", "reasoning")


@dataclass(frozen=True)
class DemoSettings:
    out: str = "runs/demo"  # where shards, checkpoints, results.json and the plot go
    seeds: int = 3  # how often the whole path runs
    prompts: int = 2000  # training prompts per seed
    heldout: int = 300  # held-out prompts per seed
    k: int = 8  # answers per prompt for best-of-K


def demo(settings: DemoSettings) -> int:
    """Run the path for every seed and write DIR/results.json, DIR/results.png. Returns the exit code."""
    out = Path(settings.out)
    accuracy: dict[str, list[float]] = {"base": [], **{s: [] for s in STUDENTS}}
    for seed in range(settings.seeds):
        for name, value in one_seed(settings, out / f"seed-{seed}", seed).items():
            accuracy[name].append(value)
    results = {name: {"accuracy": statistics.fmean(v), "seeds": v} for name, v in accuracy.items()}
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    plot(accuracy, out / "results.png")
    show_table(accuracy)
    print(f"\nshards and checkpoints: {out}/seed-*   figures: {out}/results.json   plot: {out}/results.png")
    print(f"look at a run:          thresher show {out}/seed-0/run")
    return 0


def one_seed(settings: DemoSettings, out: Path, seed: int) -> dict[str, float]:
    """Held-out accuracy of the base and of each student, by name."""
    base = toy_model("base")
    prompts = Outcome(toy_prompts("sums", "train", settings.prompts, seed))
    taught = distill.Settings(seed=seed, max_tokens=64)
    lists: dict[str, Pipeline] = {
        "distilled": distill.pipelines(taught)["sft"],
        "best-of-K": best_of_k.pipelines(best_of_k.Settings(seed=seed, k=settings.k, max_tokens=64))["sft"],
        "reasoning": reasoning.pipelines(taught)["sft"],  # shares the teacher's answers with "distilled"
    }
    _say(f"seed {seed}: shards")
    result = run(lists, prompts, out / "run", recipe="demo", settings=settings)
    found = {"base": measure(str(base), settings.heldout, seed, out / "base.json")}
    for name in STUDENTS:
        _say(f"seed {seed}: {name}")
        config = SFTConfig(
            model=str(base), data=str(result.published[name]), out=str(out / name), epochs=4.0, batch_size=32,
            learning_rate=1e-3 if name == "reasoning" else 5e-4, seed=seed, max_length=128, log_every=100,
        )  # fmt: skip
        trained = train(config)
        found[name] = measure(str(trained.checkpoint), settings.heldout, seed, out / name / "eval.json")
    return found


def measure(model: str, n: int, seed: int, file: Path) -> float:
    """Greedy accuracy of a model on `n` held-out sums of this seed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    prompts = toy_prompts("sums", "heldout", n, seed)
    config = EvalConfig(
        model=model, prompts="toy:sums", reward="math", k=1, temperature=0.0, max_tokens=64, out=str(file)
    )
    return float(evaluate(config, prompts)["accuracy"])


def show_table(accuracy: Mapping[str, list[float]]) -> None:
    """The result as a rich table on stdout: mean, every seed, gain over base."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="held-out accuracy on two-digit sums")
    for heading in ("model", "mean", "seeds", "over base"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    base = statistics.fmean(accuracy["base"])
    for name, values in accuracy.items():
        mean = statistics.fmean(values)
        gain = "" if name == "base" else f"{mean - base:+.3f}"
        table.add_row(name, f"{mean:.3f}", "  ".join(f"{v:.3f}" for v in values), gain)
    Console().print(table)


def plot(accuracy: Mapping[str, list[float]], file: Path) -> None:
    """Bars of the means with every seed as a point."""
    try:
        import matplotlib
    except ImportError:
        _say("no plot: pip install 'thresher[report]'")
        return
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    names = list(accuracy)
    means = [statistics.fmean(accuracy[n]) for n in names]
    bars = axes.bar(names, means, color=["#9aa5b1", "#4c78a8", "#59a14f", "#b279a2"][: len(names)], width=0.6)
    axes.bar_label(bars, [f"{m:.2f}" for m in means], padding=4)
    for i, name in enumerate(names):
        axes.scatter([i] * len(accuracy[name]), accuracy[name], color="black", s=14, zorder=3)
    axes.set(ylim=(0, 1.08), ylabel="held-out accuracy", title="Toy world, greedy; points are seeds")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=150, metadata={"Software": None})
    plt.close(figure)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
