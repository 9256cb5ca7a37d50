"""The audit beside what is used for the question today, on the same planted pairs, each tool in a process of its own.

    python benchmarks/audit_vs_peers.py PAIRS [--most 2000] [--flips 3] [--peers-python benchmarks/.venv-peers/bin/python]

Tools as their documentation has them: ConvoKit's FightingWords (pooled log-odds with a Dirichlet prior; |z| > 1.96 is
its threshold), PMI with 100 added to each count (Gururangan et al. 2018), scikit-learn's TF-IDF with logistic regression,
scattertext's scaled F-scores. Planted under the real labels: two made-up words for every coverage of 1, 2 and 5 % and
purity of 1, 0.9 and 0.75, and four differences of bytes in 5 %, purity 1. Measured are the rank of each among all that a
tool lists (by absolute score; of ours, the order of the report), recall among the first 20 and at the tool's own
threshold, what passes that threshold when labels are swapped by lot and nothing is planted, seconds (a tool's own
imports included) and peak memory.
`make bench-peers` makes the peers' environment and runs this.
"""

import argparse
import itertools
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
COVERAGES, PURITIES, EACH, FIRST = (0.01, 0.02, 0.05), (1.0, 0.9, 0.75), 2, 20
BYTES = {"zero-width joiner": "\u200d", "no-break space": "\u00a0", "casing": "Please", "trailing newline": "\n"}
Scores = list[tuple[str, float]]  # every feature a tool lists, strongest first
Tool = Callable[[list[str], list[str]], tuple[Scores, float | None]]  # the threshold, where it has one


def convokit(chosen: list[str], rejected: list[str]) -> tuple[Scores, float | None]:
    from convokit import Corpus, FightingWords, Speaker, Utterance

    speaker = Speaker(id="s")
    said = [
        Utterance(
            id=str(i), text=t, speaker=speaker, conversation_id="0", reply_to=None, meta={"side": i < len(chosen)}
        )
        for i, t in enumerate(chosen + rejected)
    ]
    words = FightingWords()
    words.fit(Corpus(utterances=said), lambda u: u.meta["side"], lambda u: not u.meta["side"])
    return _ordered(dict(words.ngram_zscores)), 1.96


def pmi(chosen: list[str], rejected: list[str]) -> tuple[Scores, float | None]:
    import numpy as np
    from sklearn.feature_extraction.text import CountVectorizer

    counts = CountVectorizer(binary=True)
    found = counts.fit_transform(chosen + rejected)
    n = len(chosen)
    by_side = np.stack([np.asarray(part.sum(0)).ravel() for part in (found[:n], found[n:])]) + 100.0
    joint = by_side / by_side.sum()
    value = np.log(joint / joint.sum(0, keepdims=True) / joint.sum(1, keepdims=True)).max(0)
    return _ordered(dict(zip(counts.get_feature_names_out(), value.tolist(), strict=True))), None


def tfidf(chosen: list[str], rejected: list[str]) -> tuple[Scores, float | None]:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    reader = TfidfVectorizer()
    found = reader.fit_transform(chosen + rejected)
    fitted = LogisticRegression(max_iter=1000).fit(found, [1] * len(chosen) + [0] * len(rejected))
    return _ordered(dict(zip(reader.get_feature_names_out(), fitted.coef_[0].tolist(), strict=True))), None


def scattertext(chosen: list[str], rejected: list[str]) -> tuple[Scores, float | None]:
    import pandas as pd
    import scattertext as st

    rows = pd.DataFrame({"text": chosen + rejected, "side": ["chosen"] * len(chosen) + ["rejected"] * len(rejected)})
    rows["parse"] = rows.text.apply(st.whitespace_nlp_with_sentences)
    corpus = st.CorpusFromParsedDocuments(rows, category_col="side", parsed_col="parse").build()
    scores = corpus.get_scaled_f_scores("chosen")
    return _ordered({t: float(s) - 0.5 for t, s in zip(corpus.get_terms(), scores, strict=True)}), None


PEERS: dict[str, Tool] = {"convokit": convokit, "pmi": pmi, "tfidf": tfidf, "scattertext": scattertext}


def _ordered(scores: dict[str, float]) -> Scores:
    return sorted(((t, float(s)) for t, s in scores.items()), key=lambda s: (-abs(s[1]), s[0]))


def ours(path: Path) -> Scores:
    """The report from top to bottom; whatever it lists has passed its threshold."""
    import pyarrow.parquet as pq
    from audit_reading import audited

    return [(f.feature, 1.0) for f in audited(pq.read_table(path)).findings]


def one_side(name: str, path: Path) -> dict[str, Any]:
    """What a tool lists of the pairs in a file, and what it cost."""
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=["chosen", "rejected"])
    texts = [[turns[-1]["content"] for turns in table[s].to_pylist()] for s in ("chosen", "rejected")]
    started = time.perf_counter()
    listed, threshold = (ours(path), 0.0) if name == "ours" else PEERS[name](*texts)
    seconds = time.perf_counter() - started
    passed = None if threshold is None else sum(abs(s) > threshold for _, s in listed)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    planted = json.loads(path.with_suffix(".json").read_text())
    words = {}
    for word in planted:
        rank = next((i for i, (t, _) in enumerate(listed) if t == word), None)
        over = None if threshold is None else rank is not None and abs(listed[rank][1]) > threshold
        words[word] = {"rank": None if rank is None else rank + 1, "passed": over}
    marks = {}
    for what, mark in BYTES.items():
        rank = next((i for i, (t, _) in enumerate(listed) if mark in t), None)
        marks[what] = None if rank is None else rank + 1
    return {
        "seconds": seconds,
        "peak_mib": peak,
        "listed": len(listed),
        "passed": passed,
        "words": words,
        "bytes": marks,
    }


def prepare(path: str, most: int, flips: int, folder: Path) -> dict[str, dict[str, float]]:
    """planted.parquet, flip0.parquet … in `folder`; returns coverage and purity of each planted word."""
    import numpy as np
    import pyarrow.parquet as pq
    from audit_plant_kinds import CASES, TWENTY_WORDS, text, words
    from audit_planting import flipped, planted, read, table

    base, rng = read(path, most, 0), np.random.default_rng(0)
    grid = [cell for cell in itertools.product(COVERAGES, PURITIES) for _ in range(EACH)]
    made, told = base, {}
    for word, (coverage, purity) in zip(TWENTY_WORDS, grid, strict=False):
        made, _ = planted(made, [text(word, words(word), word)], coverage, purity, rng)
        told[word] = {"coverage": coverage, "purity": purity}
    for what in BYTES:
        made, _ = planted(made, CASES[what], 0.05, 1.0, rng)
    sets = {"planted": made, **{f"flip{i}": flipped(base, np.random.default_rng(i)) for i in range(flips)}}
    for name, one in sets.items():
        pq.write_table(table(one), folder / f"{name}.parquet")
        (folder / f"{name}.json").write_text(json.dumps(list(told)))
    return told


def summed(found: dict[str, Any], nulls: list[dict[str, Any]], told: dict[str, dict[str, float]]) -> dict[str, Any]:
    """One tool's row: ranks by kind of plant, recall, false alarms, cost."""
    by_cell: dict[str, list[int | None]] = {}
    for word, where in told.items():
        by_cell.setdefault(f"{where['coverage']}/{where['purity']}", []).append(found["words"][word]["rank"])
    words = found["words"].values()
    passed = [w["passed"] for w in words]
    return {
        "seconds": found["seconds"], "peak_mib": found["peak_mib"], "listed": found["listed"], "passed": found["passed"],
        "ranks": by_cell, "recall_first_20": sum((w["rank"] or FIRST + 1) <= FIRST for w in words) / len(told),
        "recall_at_threshold": None if None in passed else sum(passed) / len(told), "bytes": found["bytes"],
        "false_alarms_a_flip": None if None in passed else statistics.mean(n["passed"] for n in nulls),
        "flips_with_any": None if None in passed else statistics.mean(n["passed"] > 0 for n in nulls),
    }  # fmt: skip


def line(tool: str, row: dict[str, Any]) -> str:
    def share(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    seen = ", ".join(what for what, rank in row["bytes"].items() if rank) or "none"
    return (
        f"{tool:12} {row['seconds']:5.1f} s {row['peak_mib']:5.0f} MiB  listed {row['listed']:6}  in the first {FIRST} "
        f"{share(row['recall_first_20'])}  at its threshold {share(row['recall_at_threshold'])}  false alarms a flip "
        f"{share(row['false_alarms_a_flip'])}  of bytes: {seen}"
    )


def last_line(python: str, tool: str, path: Path) -> dict[str, Any]:
    """The JSON object a tool's process prints last. Raises CalledProcessError, after its own words."""
    done = subprocess.run([python, __file__, "--side", tool, "--file", str(path)], capture_output=True, text=True)
    if done.returncode:
        print(done.stderr[-4000:], file=sys.stderr)
        done.check_returncode()
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pairs", nargs="?")
    parser.add_argument("--most", type=int, default=2000, help="pairs")
    parser.add_argument("--flips", type=int, default=3, help="sets with labels swapped by lot")
    parser.add_argument("--peers-python", default=str(ROOT / "benchmarks/.venv-peers/bin/python"))
    parser.add_argument("--tools", nargs="+", choices=(*PEERS, "ours"), default=[*PEERS, "ours"])
    parser.add_argument("--side", choices=(*PEERS, "ours"), help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        print("\n" + json.dumps(one_side(given.side, given.file)))
        return
    if not given.pairs:
        parser.error("name a file of preference pairs")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        told = prepare(given.pairs, given.most, given.flips, folder)
        rows = {}
        for tool in given.tools:
            python = sys.executable if tool == "ours" else given.peers_python
            found = last_line(python, tool, folder / "planted.parquet")
            nulls = [last_line(python, tool, folder / f"flip{i}.parquet") for i in range(given.flips)]
            rows[tool] = summed(found, nulls, told)
            print(line(tool, rows[tool]), flush=True)
    results = {"pairs": Path(given.pairs).stem, "most": given.most, "flips": given.flips, "tools": rows}
    (ROOT / "benchmarks/results/audit_vs_peers.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
