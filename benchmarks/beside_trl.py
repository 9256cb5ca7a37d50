"""The frame of a comparison with TRL: every side of a case in a process of its own, figures as the last line of stdout."""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WARM_UP = 4  # steps that are not timed
Side = Callable[[dict, int, Path], dict]
ALONE = {
    "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false",
    "TRL_EXPERIMENTAL_SILENCE": "1",
}  # fmt: skip


def last_line(command: Sequence[str]) -> dict:
    """The JSON object a command prints last. Raises CalledProcessError, after the command's own words."""
    done = subprocess.run(command, env={**os.environ, **ALONE}, check=False, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr[-4000:], file=sys.stderr)
        done.check_returncode()
    found: dict = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def compare(script: str, name: str, steps: int, trl_python: str) -> tuple[dict, dict, dict]:
    """TRL's figures, ours, and what both have in common. TRL comes first and leaves its batches in a folder for us."""
    sides = {}
    with tempfile.TemporaryDirectory() as folder:
        for side, python in (("trl", trl_python), ("ours", sys.executable)):
            words = ["--side", side, "--case", name, "--steps", str(steps), "--folder", folder]
            sides[side] = last_line([python, script, *words])
    trl, ours = sides["trl"], sides["ours"]
    step = {side: statistics.median(found["seconds"][WARM_UP:]) for side, found in sides.items()}
    step["ours"] += ours.get("reference_seconds_a_step", 0.0)
    return trl, ours, {
        "case": name, "steps": steps, "trl_step_s": step["trl"], "our_step_s": step["ours"],
        "speed_ratio": step["trl"] / step["ours"], "trl_peak_mib": trl["peak_mib"], "our_peak_mib": ours["peak_mib"],
        "memory_share": ours["peak_mib"] / trl["peak_mib"], "loss_difference": apart(trl["losses"], ours["losses"]),
        "weight_difference": ours["weight_difference"],
    }  # fmt: skip


def apart(a: Sequence[float], b: Sequence[float]) -> float:
    return max(abs(x - y) for x, y in zip(a, b, strict=True))


def main(
    script: str,
    cases: dict[str, dict],
    sides: dict[str, Side],
    more: Callable[[dict, dict], dict],
    by_name: dict[str, dict] | None = None,
) -> None:
    """The command line of one such script. `more(trl, ours)` are figures of its own; cases `by_name` run when asked for."""
    every = {**cases, **(by_name or {})}
    parser = argparse.ArgumentParser()
    parser.add_argument("--trl-python", default=str(ROOT / "benchmarks/.venv-trl/bin/python"))
    parser.add_argument("--case", choices=every)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--side", choices=sides)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    if given.side:
        import torch

        torch.set_num_threads(2)
        found = sides[given.side](every[given.case], given.steps, given.folder)
        found.setdefault("peak_mib", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        print("\n" + json.dumps(found))
        return
    results = []
    for name in [given.case] if given.case else cases:
        trl, ours, found = compare(script, name, given.steps, given.trl_python)
        results.append({**found, **more(trl, ours)})
        print(
            f"{name:22} {found['trl_step_s']:.3f} s -> {found['our_step_s']:.3f} s  {found['speed_ratio']:.2f}x   "
            f"{found['trl_peak_mib']:.0f} -> {found['our_peak_mib']:.0f} MiB ({found['memory_share']:.0%})   "
            f"loss {found['loss_difference']:.1e}  weights {found['weight_difference']:.1e}",
            flush=True,
        )
    if given.case in (by_name or {}):
        print(json.dumps(results, indent=1))
    elif not given.case:
        path = ROOT / "benchmarks/results" / f"{Path(script).stem}.json"
        path.write_text(json.dumps(results, indent=1) + "\n")
