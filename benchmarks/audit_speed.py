"""Seconds and memory of the audit on made pairs of any number, beside scikit-learn's counts and logistic regression.

    python benchmarks/audit_speed.py --pairs 10000 100000 --words 200 --peers-python benchmarks/.venv-peers/bin/python
    python benchmarks/audit_speed.py --pairs 1000000 --words 200 --only-make --out pairs.parquet

The texts: a Zipf vocabulary of 40,000 words, two words of five from a topic of the prompt, a full stop at every twelfth
word, prompts all different; `Certainly, here is` opens 30 % of the chosen answers. Written shard by shard, so that a
million pairs need no more memory than a thousand. Timed is `python -m pipelines.cli audit FILE` as a whole process, from
start to exit: wall time, processor time of all its processes, and the peak of their resident memory together, read every
50 ms (pages that processes share count once in each). scikit-learn runs in the peers' environment, up to 100,000 pairs.
"""

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[1]
VOCABULARY, TOPICS, OF_TOPIC, STOP = 40_000, 200, 400, 12
SHARD = 10_000  # pairs written at once
OPENER = "Certainly, here is "
SYLLABLES = [
    *re.findall("..", "bacodifugehainjokalemoneorparesatiunvewaxeyozaeralstthly"),
    "qui",
    "ing",
    "tion",
    "ment",
]
MOST_FOR_PEER = 100_000
TEXT = pa.large_string()


def vocabulary(rng: np.random.Generator) -> pa.Array:
    """Words, commonest first, and the same words again with a full stop."""
    seen: dict[str, None] = {}
    while len(seen) < VOCABULARY:
        seen["".join(rng.choice(SYLLABLES, int(rng.integers(1, 5))))] = None
    words = sorted(seen, key=len)  # the common ones are short
    return pa.array([*words, *(f"{word}." for word in words)], TEXT)


def side(
    topics: np.ndarray, of_row: np.ndarray, cdf: np.ndarray, words: int, rng: np.random.Generator
) -> tuple[pa.Array, pa.Array]:
    """(word numbers, offsets) of one answer a row."""
    lengths = np.clip(rng.normal(words, 0.27 * words, len(of_row)), 5, 3 * words).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    drawn = np.searchsorted(cdf, rng.random(offsets[-1], np.float32)).astype(np.int32)
    row = np.repeat(np.arange(len(of_row)), lengths)
    topical = rng.random(len(drawn), np.float32) < 0.4
    drawn[topical] = topics[of_row[row[topical]], drawn[topical] % OF_TOPIC]
    drawn[(np.arange(len(drawn)) - offsets[row]) % STOP == STOP - 1] += VOCABULARY
    return pa.array(drawn), pa.array(offsets)


def make(pairs: int, words: int, out: Path, seed: int = 0) -> None:
    """Pairs as prompt, chosen, rejected in a Parquet file."""
    rng = np.random.default_rng(seed)
    words_of = vocabulary(rng)
    weights = 1 / np.arange(1, VOCABULARY + 1) ** 1.05
    cdf = np.cumsum(weights / weights.sum()).astype(np.float32)
    cdf[-1] = 1
    topics = rng.integers(0, VOCABULARY, (TOPICS, OF_TOPIC)).astype(np.int32)
    schema = pa.schema([(name, TEXT) for name in ("prompt", "chosen", "rejected")])
    with pq.ParquetWriter(out, schema, compression="zstd", use_dictionary=False) as file:
        for first in range(0, pairs, SHARD):
            n = min(SHARD, pairs - first)
            of_row = rng.integers(0, TOPICS, n)
            texts = []
            for _ in range(2):
                numbers, offsets = side(topics, of_row, cdf, words, rng)
                lists = pa.LargeListArray.from_arrays(offsets, words_of.take(numbers))
                texts.append(pc.binary_join(lists, pa.scalar(" ", TEXT)))
            opened = pc.if_else(pa.array(rng.random(n) < 0.3), pa.scalar(OPENER, TEXT), pa.scalar("", TEXT))
            chosen = pc.binary_join_element_wise(opened, texts[0], pa.scalar("", TEXT))
            prompts = [f"Question {first + i} on topic {t}" for i, t in enumerate(of_row.tolist())]
            file.write_table(pa.table([pa.array(prompts, TEXT), chosen, texts[1]], schema=schema))


def tree_bytes(pid: int) -> int:
    """Resident bytes of a process and all below it."""
    children: dict[int, list[int]] = {}
    resident: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            resident[int(folder.name)] = int((folder / "statm").read_text().split()[1])
        except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            continue
        children.setdefault(parent, []).append(int(folder.name))
    total, left = 0, [pid]
    while left:
        at = left.pop()
        total += resident.get(at, 0)
        left += children.get(at, [])
    return total * os.sysconf("SC_PAGE_SIZE")


def timed(command: Sequence[str]) -> dict[str, float]:
    """One run of a command. Raises CalledProcessError, after its own words."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        run = subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=said)
        peak, ended = [0], threading.Event()

        def watch() -> None:
            while not ended.wait(0.05):
                peak[0] = max(peak[0], tree_bytes(run.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        code = run.wait()
        seconds = time.perf_counter() - started
        ended.set()
        watcher.join()
        if code:
            said.seek(0)
            print(said.read().decode()[-4000:], file=sys.stderr)
            raise subprocess.CalledProcessError(code, list(command))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    worked = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": seconds, "processor_seconds": worked, "peak_mib": peak[0] / 2**20}


def scikit_learn(path: str) -> None:
    """Binary 1- and 2-grams in at least five texts, then a logistic regression on the differences of the two sides."""
    from scipy import sparse
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    table = pq.read_table(path)
    chosen, rejected = (table[s].to_pylist() for s in ("chosen", "rejected"))
    n = len(chosen)
    counts = CountVectorizer(binary=True, ngram_range=(1, 2), min_df=5, token_pattern=r"\S+")
    found = counts.fit_transform(chosen + rejected)
    sign = np.where(np.arange(n) % 2, 1, -1)  # every other pair turned round: two classes
    difference = sparse.diags(sign.astype(np.float32)) @ (found[:n] - found[n:]).astype(np.float32)
    fitted = LogisticRegression(fit_intercept=False, max_iter=100, C=0.1).fit(difference, sign > 0)
    strongest = np.argsort(-np.abs(fitted.coef_[0]))[:3]
    print(counts.get_feature_names_out()[strongest].tolist())


def compared(path: Path, pairs: int, runs: int, peers_python: str | None) -> dict[str, Any]:
    """Both on one file, in turn, so that a busy minute does not fall on one of them alone."""
    sides: dict[str, list[dict[str, float]]] = {"ours": []}
    if peers_python and pairs <= MOST_FOR_PEER:
        sides["scikit-learn"] = []
    with tempfile.TemporaryDirectory() as folder:
        ours = ["-m", "pipelines.cli", "audit", str(path), "--out", f"{folder}/audit", "--fail-on", "never"]
        for _ in range(runs):
            sides["ours"].append(timed([sys.executable, *ours]))
            if "scikit-learn" in sides:
                sides["scikit-learn"].append(timed([str(peers_python), __file__, "--peer", str(path)]))
    return {
        name: {
            **{f"median_{k}": statistics.median(t[k] for t in told) for k in told[0]}, "runs": told,
            "pairs_per_second": pairs / statistics.median(t["seconds"] for t in told),
        }
        for name, told in sides.items()
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, nargs="+", default=[10_000])
    parser.add_argument("--words", type=int, default=200, help="of one side, in the mean")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", type=Path, help="keep the pairs here; with several --pairs, a folder")
    parser.add_argument("--only-make", action="store_true", help="make the pairs and time nothing")
    parser.add_argument("--peers-python", help="python of the peers' environment; without it the audit runs alone")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.peer:
        scikit_learn(given.peer)
        return
    path = ROOT / "benchmarks/results/audit_speed.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        for pairs in given.pairs:
            several = given.out is None or len(given.pairs) > 1
            made = (given.out or Path(folder)) / f"pairs_{pairs}.parquet" if several else given.out
            made.parent.mkdir(parents=True, exist_ok=True)
            started = time.perf_counter()
            make(pairs, given.words, made)
            print(f"{pairs:,} pairs made in {time.perf_counter() - started:.1f} s, {made.stat().st_size / 1e6:.0f} MB")
            if given.only_make:
                continue
            found = compared(made, pairs, given.runs, given.peers_python)
            results[f"{pairs} x {given.words}"] = found
            for name, told in found.items():
                print(f"  {name:13} {told['median_seconds']:.1f} s, {told['median_peak_mib']:.0f} MiB", flush=True)
            path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
