"""The command line from end to end on small real parts, and its complaints: one line, exit 2, nothing lost."""

import json
import os
import subprocess
import sys
from pathlib import Path

from pipelines.cli import main
from tests.fakes import random_model

ROOT = Path(__file__).resolve().parents[1]


def prompts(folder: Path, n: int = 12) -> str:
    path = folder / "prompts.jsonl"
    path.write_text(
        "".join(json.dumps({"question": f"What is {i}+{i}?", "answer": str(2 * i)}) + "\n" for i in range(10, 10 + n))
    )
    return str(path)


def test_prompts_to_shards_to_checkpoint_to_figures_to_lineage(tmp_path: Path, capsys):
    run, model = str(tmp_path / "run"), str(random_model())
    common = [
        "--prompts",
        prompts(tmp_path),
        "--policy",
        model,
        "--k",
        "3",
        "--max-tokens",
        "6",
        "--out",
        run,
        "--min-score",
        "0",
    ]
    assert main(["run", "best_of_k", *common, "--dry-run"]) == 0
    assert "never ran" in capsys.readouterr().out and not Path(run).exists()
    assert main(["run", "best_of_k", *common]) == 0
    assert main(["run", "best_of_k", *common, "--dry-run"]) == 0
    assert capsys.readouterr().out.count("reuse 1 of 1") == 4
    trained = str(tmp_path / "model")
    assert main(["train", "sft", "--model", model, "--data", f"{run}/sft", "--out", trained, "--steps", "3"]) == 0
    figures = tmp_path / "eval.json"
    assert (
        main(
            [
                "eval",
                "--model",
                trained,
                "--prompts",
                prompts(tmp_path),
                "--k",
                "2",
                "--max-tokens",
                "6",
                "--out",
                str(figures),
            ]
        )
        == 0
    )
    assert {"accuracy", "pass@1", "pass@2", "maj@2", "no_verdict"} <= set(json.loads(figures.read_text()))
    capsys.readouterr()
    assert main(["show", run]) == 0
    shown = capsys.readouterr().out
    assert "left: " in shown and "BestOfK(" in shown and "set " in shown
    assert main(["trace", trained, "--run", run]) == 0
    assert "Sample(" in capsys.readouterr().out
    first = json.loads((Path(run) / "run.json").read_text())["stages"]
    from curation.shards import ShardSet

    row = ShardSet(Path(run) / "sft").table()["candidate_id"][0].as_py()
    assert len(first) == 4 and main(["trace", row[:12], "--run", run]) == 0
    shown = capsys.readouterr().out
    assert "Input" in shown and "BestOfK" in shown and "What is" in shown


def test_answers_that_exist_are_scored_chosen_and_published(tmp_path: Path):
    rows = [{"question": "q", "answer": "4", "response": r} for r in ("#### 4", "#### 5", "4")]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert (
        main(
            [
                "run",
                "best_of_k",
                "--imported",
                "--prompts",
                str(tmp_path / "answers.jsonl"),
                "--out",
                str(tmp_path / "run"),
            ]
        )
        == 0
    )
    from curation.shards import read_shards

    assert read_shards(tmp_path / "run/sft").num_rows == 1


def test_a_recipe_of_ones_own_runs_by_its_path(tmp_path: Path):
    (tmp_path / "mine.py").write_text(
        '"""Mine."""\nfrom dataclasses import dataclass\nfrom curation import Sample\nfrom tests.fakes import FakeEngine\n'
        "@dataclass(frozen=True)\nclass Settings:\n    k: int = 2  # answers\n"
        "def pipelines(s):\n    return {'candidates': [Sample(FakeEngine(), k=s.k)]}\n"
    )
    (tmp_path / "p.jsonl").write_text('{"prompt": "double 3"}\n')
    out = tmp_path / "run"
    assert (
        main(["run", str(tmp_path / "mine.py"), "--prompts", str(tmp_path / "p.jsonl"), "--out", str(out), "--k", "4"])
        == 0
    )
    assert "1 -> 4" in (out / "log.txt").read_text()


def wrong(folder: Path) -> dict[str, list[str]]:
    """Command lines that cannot work."""
    good, model = prompts(folder), str(random_model())
    (folder / "recipe.py").write_text("x = 1\n")
    (folder / "s.yaml").write_text("kk: 3\n")
    (folder / "no_truth.jsonl").write_text('{"prompt": "a"}\n')
    (folder / "all_bad.jsonl").write_text('{"question": ""}\n')
    (folder / "half").mkdir()
    (folder / "half" / "config.json").write_text("{}")
    run = ["run", "best_of_k", "--prompts", good, "--policy", model, "--out", str(folder / "out")]
    train = ["train", "sft", "--model", model, "--data", good, "--out", str(folder / "out")]
    return {
        "command": ["rum"], "flag": ["--nothing"], "recipe": ["run", "best_of_q"], "recipe file": ["run", str(folder / "none.py")],
        "hollow recipe": ["run", str(folder / "recipe.py")], "setting": [*run, "--kk", "3"], "value": [*run, "--k", "three"],
        "zero k": [*run, "--k", "0"], "settings file": [*run, "--config", str(folder / "s.yaml")], "no settings file": [*run, "--config", "x.yaml"],
        "reward": [*run, "--reward", "maths"], "pattern": [*run, "--reward", "format:["], "no prompts": ["run", "best_of_k", "--prompts", "no.jsonl"],
        "bad prompts": [*run[:3], str(folder / "all_bad.jsonl"), *run[4:]], "no model": [*run, "--policy", "/no/model"],
        "half a model": [*run, "--policy", str(folder / "half")], "endpoint": [*run, "--policy", "http://127.0.0.1:9/v1"],
        "no key": [*run, "--policy", "http://127.0.0.1:9/v1#m", "--api-key-env", "NOT_SET_ANYWHERE"], "toy task": ["run", "best_of_k", "--prompts", "toy:x"],
        "toy model": [*run, "--policy", "toy:huge"], "trainer": ["train", "ppp"], "no trainer": ["train"], "no data": [*train[:4], "--out", "x"],
        "missing data": [*train[:5], "no.jsonl", "--out", "x"], "tracker": [*train, "--trackers", "paper", "--steps", "1"],
        "schedule": [*train, "--schedule", "sine"], "train model": ["train", "sft", "--model", "/no/model", *train[4:]],
        "too short": [*train, "--max-length", "2"], "eval without truth": ["eval", "--model", model, "--prompts", str(folder / "no_truth.jsonl")],
        "show nothing": ["show", str(folder / "nowhere")], "trace nothing": ["trace", "abc", "--run", str(folder)], "trace no run": ["trace", "abc"],
        "band": [*run, "--min-pass-rate", "0.9", "--max-pass-rate", "0.1"],
    }  # fmt: skip


def test_wrong_use_is_one_line_and_exit_2(tmp_path: Path, capsys):
    for name, words in wrong(tmp_path).items():
        capsys.readouterr()
        assert main(words) == 2, name
        said = capsys.readouterr().err.strip().splitlines()
        assert said and said[-1].startswith("thresher: ") and "expected" in said[-1], (name, said)
        assert not any("Traceback" in line for line in said), name


def test_a_full_disk_is_one_line_and_keeps_what_was_committed(tmp_path: Path):
    """RLIMIT_FSIZE stands for the full disk: writes beyond it fail."""
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))\n"
        "from pipelines.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = ["run", "best_of_k", "--prompts", prompts(tmp_path, 60), "--policy", str(random_model()), "--k", "8", "--max-tokens", "4",
               "--min-score", "0", "--out", str(tmp_path / "run")]  # fmt: skip
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    full = subprocess.run(
        [sys.executable, "-c", code, *command], cwd=ROOT, capture_output=True, text=True, env=environment
    )
    assert full.returncode == 2 and "free space" in full.stderr.strip().splitlines()[-1], full.stderr[-500:]
    assert main(command) == 0
