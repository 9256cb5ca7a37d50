"""A run that is killed at random moments and started again, until it ends; what it leaves must be as if undisturbed.

python -m tests.killed_run OUT LOG        one (whole) run of the job
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from curation.best_of_k import BestOfK
from curation.engine import Reply
from curation.messages import ToMessages
from curation.rewards import ExactMatch
from curation.runner import run
from curation.sample import Sample
from curation.score import Score
from tests.fakes import FakeEngine, echo, prompts

PROMPTS, K, SHARD = 160, 2, 4


def slow_echo(request, sample) -> Reply:
    time.sleep(0.002)
    return echo(request, sample)


def job(out: Path, log: Path) -> None:
    scored = [Sample(FakeEngine(slow_echo, log=str(log)), k=K), Score(ExactMatch())]
    run(
        {"scored": scored, "sft": [*scored, BestOfK(min_score=1.0), ToMessages()]}, prompts(PROMPTS), out,
        shard_prompts=SHARD, quiet=True,
    )  # fmt: skip


def campaign(folder: Path, kills: int, seed: int, pairs: float) -> dict[str, int]:
    """Start the job until `kills` were dealt, a share `pairs` of the times two at once; finish jobs as they come.

    Returns counts: kills, jobs finished, jobs whose bytes differ, samples asked twice beyond those in flight.
    """
    rng = random.Random(seed)
    start = time.monotonic()
    assert launch(folder / "clean").wait() == 0
    alone = time.monotonic() - start
    wanted = contents(folder / "clean" / "run")
    found = {"kills": 0, "jobs": 0, "different": 0, "asked_twice": 0}
    while found["kills"] < kills:
        home = folder / f"job{found['jobs']}"
        out, log = home / "run", home / "asked.log"
        dealt, paired = 0, False
        while not (out / "sft" / "_SUCCESS.json").exists() or dealt == 0:
            two = rng.random() < pairs
            paired |= two
            running = [launch(home) for _ in range(2 if two else 1)]
            time.sleep(rng.uniform(0.25, 1.0) * alone)
            for process in running:
                dealt += process.poll() is None
                os.kill(process.pid, signal.SIGKILL) if process.poll() is None else None
                process.wait()
            if dealt > 12:
                break
        assert launch(home).wait() == 0
        found["kills"] += dealt
        found["jobs"] += 1
        found["different"] += contents(out) != wanted
        extra = len(log.read_text().splitlines()) - PROMPTS * K
        found["asked_twice"] += 0 if paired else max(0, extra - dealt * K)
    return found


def launch(home: Path) -> "subprocess.Popen[bytes]":
    """The job in a folder of its own. Its paths are relative, since settings are part of every fingerprint."""
    home.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    return subprocess.Popen([sys.executable, "-m", "tests.killed_run"], cwd=home, env=environment)


def contents(out: Path) -> dict[str, bytes]:
    """Data, records and cards of the published sets, and the data of every stage."""
    kept = [p for p in out.rglob("*") if p.is_file() and "journal" not in p.parts and not p.name.endswith(".tmp")]
    kept = [
        p for p in kept if p.parent.name in ("commits", "scored", "sft") or p.name == "_SUCCESS.json" or committed(p)
    ]
    return {
        str(p.relative_to(out)): p.read_bytes()
        for p in sorted(kept)
        if ".publishing" not in str(p) and ".old" not in str(p)
    }


def committed(path: Path) -> bool:
    """A data file that a commit record names; another may be the orphan of a killed writer."""
    record = path.parent.parent / "commits" / f"{path.name[:5]}.json"
    return path.suffix == ".parquet" and record.exists() and path.name in record.read_text()


if __name__ == "__main__":
    job(Path("run"), Path("asked.log"))
