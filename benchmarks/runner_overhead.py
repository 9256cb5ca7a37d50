"""Rows per second through Sample → Score → BestOfK with an engine that answers at once: what the runner itself costs.

    python benchmarks/runner_overhead.py [--prompts 5000] [--k 4] [--shard-prompts 256]

Wall time needs a quiet machine; the seconds of processor time beside it say what a loaded one hides. Journal, shards,
hashes, fsync and publishing included. Peers on this kind of machine: distilabel 418 rows/s, curator 295 rows/s.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from curation.best_of_k import BestOfK
from curation.rewards import ExactMatch
from curation.runner import run
from curation.sample import Sample
from curation.score import Score
from tests.fakes import FakeEngine, prompts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--prompts", type=int, default=5000)
    parser.add_argument("--k", type=int, default=4)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--shard-prompts", type=int, default=256, help="as `run` has it (256)")
    given = parser.parse_args()
    asked = prompts(given.prompts)
    stages = [Sample(FakeEngine(), k=given.k), Score(ExactMatch()), BestOfK(min_score=1.0)]
    seconds, processor = [], []
    for _ in range(given.runs):
        with tempfile.TemporaryDirectory() as folder:
            started, worked = time.perf_counter(), time.process_time()
            run({"best": stages}, asked, Path(folder), shard_prompts=given.shard_prompts, quiet=True)
            seconds.append(time.perf_counter() - started)
            processor.append(time.process_time() - worked)
    rows = given.prompts * given.k
    found = {
        "rows": rows, "shard_prompts": given.shard_prompts, "seconds": seconds, "processor_seconds": processor,
        "rows_per_second": rows / statistics.median(seconds),
    }  # fmt: skip
    print(
        f"{rows} rows, median {statistics.median(seconds):.2f} s ({statistics.median(processor):.2f} s of processor): "
        f"{found['rows_per_second']:.0f} rows/s"
    )
    Path(__file__).with_name("results").joinpath("runner_overhead.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
