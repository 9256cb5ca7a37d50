"""A planted shortcut in a model: DPO learns it, the audit names it, repair stops it; three seeds, with a plot.

    python benchmarks/toy_shortcut.py [--seeds 3] [--methods balance]

Each seed mines pairs of right against wrong sums from the toy base (`on_policy_dpo`). Half of all answers, right or
wrong, close with " Done.": a habit that says nothing of the label, which the audit must leave alone. (It also gives the
audit something to compare with: a marker that is the only common one-sided word would pass for length.) Planted, " ok"
follows the number:

    chosen only     SHARES["chosen"] of the pairs, as a habit of whoever wrote the better answers
    rejected only   SHARES["rejected"]: counter-examples, few, since repair keeps no more chosen ones than these

Arms, each trained from the base for as many steps with the same settings:

    clean           the pairs without " ok"
    planted         all of them with it
    METHOD          what `thresher audit` and `thresher repair --method METHOD` leave of planted
    twin            the pairs that the first METHOD kept, as they stand in clean: tells what fewer pairs cost from what is
                    left of " ok" costs

Measured on all 986 held-out sums, which are in no pair. Token rate: answers with " ok", greedy and sampled once at
temperature 1, each with a Wilson 95 % interval over prompts. Accuracy: greedy, by the `math` reward as `thresher eval`
has it. That reads the last number of the answer: neither " ok" nor " Done." is removed, and neither costs anything.

What it does not show: the loss is DPO plus `sft_weight` of the chosen answers' own, as in toy_preferences.py, since from
margins alone this base learns no sums; imitation carries part of the token, and sampled answers have it little more
often than the chosen ones do. An opener is harder on the model than these closers: on one seed, "Sure! " left in one
side of a tenth of the repaired pairs cost 6 points (learning rate 2e-4), perhaps since every digit behind it moves.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.pair_source import read_pairs
from curation.rewards import reward_by_name
from curation.runner import run
from curation.sample import Sample
from curation.schema import content_id
from curation.score import Score
from curation.stage import Outcome
from pipelines import on_policy_dpo
from pipelines.models import engine_for
from pipelines.toy import toy_model, toy_prompts
from training.dpo import DPOConfig, train

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PLOT = ROOT / "benchmarks/results/toy_shortcut.json", ROOT / "docs/toy_shortcut.svg"
MARKER, HABIT = " ok", " Done."
SHARES = {"chosen": 0.6, "rejected": 0.02}  # pairs in which that side alone has the marker
K = 16  # answers per prompt, of all 7,114 training prompts: about 5,400 pairs
STEPS = 400
SETTINGS: dict[str, Any] = {"learning_rate": 1e-4, "sft_weight": 0.5, "batch_size": 16, "max_length": 256}
SIDES = ("chosen", "rejected")


def mine(seed: int, folder: Path) -> pa.Table:
    """Right against wrong answers of the base, one pair of a prompt at most."""
    lists = on_policy_dpo.pipelines(on_policy_dpo.Settings(seed=seed, k=K, max_tokens=64))
    prompts = Outcome(toy_prompts("sums", "train", 10_000, seed))
    made = run({"dpo": lists["dpo"]}, prompts, folder, quiet=True).published["dpo"]
    return read_pairs(str(made)).rows


def plant(rows: pa.Table, seed: int) -> pa.Table:
    """The same pairs, the marker behind one side of the shares that SHARES says; which pairs is drawn by seed."""
    order = random.Random(content_id("plant", seed)).sample(range(rows.num_rows), rows.num_rows)
    first, second = (round(SHARES[side] * rows.num_rows) for side in SIDES)
    picked = {"chosen": set(order[:first]), "rejected": set(order[first : first + second])}
    for side in SIDES:
        rows = ending(rows, side, [MARKER if row in picked[side] else "" for row in range(rows.num_rows)])
    return rows


def with_habit(rows: pa.Table, seed: int) -> pa.Table:
    """Every answer with the habit or without, by a coin; the same coins whatever the answers are."""
    rng = random.Random(content_id("habit", seed))
    for side in SIDES:
        rows = ending(rows, side, [rng.choice(("", HABIT)) for _ in range(rows.num_rows)])
    return rows


def ending(rows: pa.Table, side: str, ends: Sequence[str]) -> pa.Table:
    """The same rows, with `ends` behind the last turns of one side."""
    turns = [
        [*t[:-1], {**t[-1], "content": t[-1]["content"] + end}]
        for t, end in zip(rows[side].to_pylist(), ends, strict=True)
    ]
    at = rows.column_names.index(side)
    return rows.set_column(at, rows.schema.field(side), pa.array(turns, rows.schema.field(side).type))


def carriers(rows: pa.Table) -> dict[str, float]:
    """Pairs, how many carry the marker on one side alone or on both, and its pull: (chosen − rejected) / pairs."""
    has = [[MARKER in t[-1]["content"] for t in rows[side].to_pylist()] for side in SIDES]
    both = [sum(c and r for c, r in zip(*has, strict=True))]
    chosen, rejected = (sum(side) - both[0] for side in has)
    return {
        "pairs": rows.num_rows, "chosen": chosen, "rejected": rejected, "both": both[0],
        "pull": (chosen - rejected) / rows.num_rows,
    }  # fmt: skip


def command(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "pipelines.cli", *words], cwd=ROOT, check=True, capture_output=True)


def audited(rows: pa.Table, folder: Path) -> dict[str, Any]:
    """What `thresher audit` writes of these pairs; they stand in folder/pairs.parquet."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, folder / "pairs.parquet")
    command("audit", str(folder / "pairs.parquet"), "--out", str(folder / "audit"), "--fail-on", "never")
    found: dict[str, Any] = json.loads((folder / "audit/audit.json").read_text())
    return found


def said(audit: Mapping[str, Any], rows: pa.Table) -> dict[str, Any]:
    """Verdict, the strongest findings, what was said of the habit, and the marker's own figures, counted from the texts."""
    grave = sorted((f for f in audit["findings"] if f["severity"] != "info"), key=lambda f: -abs(f["pull"]))
    fields = ("feature", "family", "severity", "pull", "purity", "coverage")
    return {
        "verdict": audit["verdict"],
        "reasons": audit["reasons"][:3],
        "from_warn_on": len(grave),
        "strongest": [{k: f[k] for k in fields} for f in grave[:3]],
        "habit_named": any(HABIT.strip(" .").lower() in f["feature"].lower() for f in grave),
        "marker": carriers(rows),
    }


def repaired(folder: Path, method: str) -> tuple[pa.Table, dict[str, Any]]:
    """The pairs that one method leaves of an audited folder, and the audit of them."""
    out = folder / method
    command(
        "repair", str(folder / "pairs.parquet"), "--audit", str(folder / "audit/audit.json"), "--out", str(out),
        "--method", method,
    )  # fmt: skip
    rows = read_pairs(str(out / "pairs.parquet")).rows
    return rows, audited(rows, out / "again")


def measure(model: Path, prompts: pa.Table) -> dict[str, float]:
    """Token rate and accuracy on held-out prompts; see above."""
    engine, found = engine_for(str(model)), {}
    for name, temperature in (("greedy", 0.0), ("sampled", 1.0)):
        answers = Sample(engine, k=1, temperature=temperature, max_tokens=64, seed=0)(prompts).rows
        hits = sum(MARKER in text for text in answers["completion"].to_pylist())
        found[f"{name}_rate"] = hits / answers.num_rows
        found[f"{name}_low"], found[f"{name}_high"] = wilson(hits, answers.num_rows)
        if name == "greedy":
            scores = Score(reward_by_name("math"))(answers).rows["score"].to_numpy()
            found["accuracy"] = float(scores.sum() / prompts.num_rows)
    return found


def wilson(hits: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    share, scale = hits / n, 1 + z * z / n
    middle = (share + z * z / (2 * n)) / scale
    half = z / scale * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)


def one(seed: int, methods: Sequence[str], folder: Path) -> dict[str, Any]:
    """Every arm of one seed: what the audit says of its pairs, and what the model trained on them does."""
    heldout = toy_prompts("sums", "heldout", 10_000, 0)
    mined = mine(seed, folder / "run")
    clean, planted = with_habit(mined, seed), with_habit(plant(mined, seed), seed)
    arms = {"clean": clean, "planted": planted}
    audits = {name: audited(rows, folder / name) for name, rows in arms.items()}
    for method in methods:
        arms[method], audits[method] = repaired(folder / "planted", method)
    kept = pa.array(arms[methods[0]]["pair_id"].to_pylist())
    arms["twin"] = clean.filter(pa.compute.is_in(clean["pair_id"], value_set=kept))
    found: dict[str, Any] = {"base": measure(toy_model("base"), heldout)}
    for name, rows in arms.items():
        pq.write_table(rows, folder / f"{name}.parquet")
        config = DPOConfig(
            model=str(toy_model("base")), data=str(folder / f"{name}.parquet"), out=str(folder / "models" / name),
            steps=STEPS, seed=seed, log_every=1000, **SETTINGS,
        )  # fmt: skip
        found[name] = measure(train(config).checkpoint, heldout) | {"pairs": rows.num_rows}
        print(f"seed {seed} {name}: {shown(found[name])}", flush=True)
    return {
        "seed": seed, "heldout": heldout.num_rows, "arms": found,
        "audits": {name: said(audit, arms[name]) for name, audit in audits.items()},
    }  # fmt: skip


def shown(found: Mapping[str, float]) -> str:
    return (
        f"token {found['greedy_rate']:6.1%} ({found['greedy_low']:.1%} to {found['greedy_high']:.1%}), "
        f"sampled {found['sampled_rate']:6.1%}, accuracy {found['accuracy']:.3f}"
    )


def summary(seeds: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Means over the seeds, by arm."""
    measures = ("greedy_rate", "sampled_rate", "accuracy")
    return {arm: {m: statistics.fmean(s["arms"][arm][m] for s in seeds) for m in measures} for arm in seeds[0]["arms"]}


def plot(seeds: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Token rate and accuracy by arm: bars are means, points seeds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    matplotlib.rcParams["svg.hashsalt"] = "thresher"  # the same figures make the same file
    means = summary(seeds)
    figure, axes = plt.subplots(1, 2, figsize=(8.4, 3.4), layout="constrained")
    headings = {"greedy_rate": f"greedy answers with the planted {MARKER!r}", "accuracy": "greedy accuracy"}
    for ax, (measured, heading) in zip(axes, headings.items(), strict=True):
        values = [means[arm][measured] for arm in means]
        bars = ax.bar(
            list(means), values, color=["#9aa5b1", "#4c78a8", "#e15759", *["#59a14f"] * 9][: len(means)], width=0.6
        )
        ax.bar_label(bars, [f"{v:.2f}" for v in values], padding=5)
        for i, arm in enumerate(means):
            ax.scatter([i] * len(seeds), [s["arms"][arm][measured] for s in seeds], color="black", s=12, zorder=3)
        ax.set(ylim=(0, 1.12), title=heading)
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=["balance"], help="of thresher repair; an arm each")
    given = parser.parse_args()
    seeds, started = [], time.perf_counter()
    for seed in range(given.seeds):
        with tempfile.TemporaryDirectory() as folder:
            seeds.append(one(seed, given.methods, Path(folder)))
    means = summary(seeds)
    settings = {"marker": MARKER, "habit": HABIT, "shares": SHARES, "k": K, "steps": STEPS, **SETTINGS}
    result = {"settings": settings, "seconds": round(time.perf_counter() - started), "means": means, "seeds": seeds}
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    plot(seeds, PLOT)
    print(f"{'arm':14} {'token':>7} {'sampled':>8} {'accuracy':>9}  to clean   (means of {len(seeds)} seeds)")
    for arm, mean in means.items():
        apart = mean["accuracy"] - means["clean"]["accuracy"]
        print(f"{arm:14} {mean['greedy_rate']:7.1%} {mean['sampled_rate']:8.1%} {mean['accuracy']:9.3f}  {apart:+.3f}")


if __name__ == "__main__":
    main()
