"""The local runner: shared prefixes run once, kills and changes cost only what they touch, accounts add up."""

import json
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from curation.best_of_k import BestOfK
from curation.engine import Reply
from curation.errors import PipelineError
from curation.messages import ToMessages
from curation.rewards import ExactMatch
from curation.runner import plan, run
from curation.sample import Sample
from curation.score import Score
from curation.shards import ShardSet, read_shards
from curation.stage import Outcome, Stage, split
from tests.fakes import FakeEngine, Slow, prompts


def lists(engine: FakeEngine, k: int = 2) -> dict:
    scored = [Sample(engine, k=k), Score(ExactMatch())]
    return {"scored": scored, "sft": [*scored, BestOfK(min_score=1.0), ToMessages()]}


def asked(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


def go(tmp_path: Path, engine: FakeEngine | None = None, n: int = 20, **more: object):
    return run(lists(engine or FakeEngine()), prompts(n), tmp_path / "run", shard_prompts=6, quiet=True, **more)


def test_a_run_leaves_finished_sets_with_every_row_accounted_for(tmp_path: Path):
    result = go(tmp_path)
    assert read_shards(result.published["scored"]).num_rows == 40
    sft = read_shards(result.published["sft"])
    assert [m[-1]["content"] for m in sft["messages"].to_pylist()] == [str(2 * i) for i in range(20)]
    for stage in result.stages:
        if stage["stage"] != "Sample":
            assert stage["rows_in"] == stage["rows_out"] + sum(stage["reasons"].values())
    card = (tmp_path / "run/sft/README.md").read_text()
    assert card.startswith("---\nconfigs:") and "below_floor 20" in card and "20 rows in 4 shards" in card
    assert "dropped 20: below_floor 20" in (tmp_path / "run/log.txt").read_text()


def test_two_lists_with_the_same_beginning_share_its_work(tmp_path: Path):
    log = tmp_path / "asked"
    go(tmp_path, FakeEngine(log=str(log)))
    assert len(asked(log)) == len(set(asked(log))) == 40
    assert len(list((tmp_path / "run/stages").glob("01-Sample-*"))) == 1


def test_running_again_does_nothing_and_a_changed_setting_only_what_follows_it(tmp_path: Path):
    log = tmp_path / "asked"
    engine = FakeEngine(log=str(log))
    go(tmp_path, engine)
    go(tmp_path, engine)
    run({"sft": [*lists(engine)["scored"], BestOfK()]}, prompts(20), tmp_path / "run", shard_prompts=6, quiet=True)
    assert len(asked(log)) == 40
    run(lists(engine, k=3), prompts(20), tmp_path / "run", shard_prompts=6, quiet=True)
    assert len(asked(log)) == 40 + 60  # another stage folder has another journal
    assert read_shards(tmp_path / "run/scored").num_rows == 60


def test_the_same_input_gives_the_same_bytes(tmp_path: Path):
    def data(root: Path) -> dict[str, bytes]:
        return {
            p.name: p.read_bytes()
            for p in sorted(root.rglob("*"))
            if p.suffix in (".parquet",) or p.name == "_SUCCESS.json"
        }

    go(tmp_path / "a"), go(tmp_path / "b")
    assert data(tmp_path / "a") == data(tmp_path / "b")


def test_the_plan_says_what_is_reused_and_why_the_rest_runs(tmp_path: Path):
    out = tmp_path / "run"
    assert str(plan(lists(FakeEngine()), prompts(20), out, 6)).count("never ran") == 4
    assert not out.exists()
    go(tmp_path)
    assert str(plan(lists(FakeEngine()), prompts(20), out, 6)).count("reuse 4 of 4") == 4
    changed = str(plan(lists(FakeEngine(), k=5), prompts(20), out, 6))
    assert "settings changed: k 2 -> 5" in changed and "its input or a stage before it changed" in changed
    next((out / "stages").glob("03-BestOfK-*/commits/00001.json")).unlink()
    assert "run   1 of 4 shards: interrupted" in str(plan(lists(FakeEngine()), prompts(20), out, 6))


@dataclass(frozen=True)
class Whole(Stage):
    """Needs all rows: keeps the first half of them."""

    reads: ClassVar = ("candidate_id",)
    whole: ClassVar = True

    def __call__(self, rows):
        return split(rows, [None if i < rows.num_rows // 2 else "second_half" for i in range(rows.num_rows)], self.key)


def test_a_stage_that_needs_all_rows_sees_them_all_and_the_stages_after_it_follow(tmp_path: Path):
    stages = [Sample(FakeEngine(), k=2), Whole(), Score(ExactMatch())]
    result = run({"out": stages}, prompts(20), tmp_path, shard_prompts=3, quiet=True)
    assert read_shards(result.published["out"]).num_rows == 20
    again = run({"out": stages}, prompts(20), tmp_path, shard_prompts=3, quiet=True)
    assert read_shards(again.published["out"]).num_rows == 20


class Busy:
    """How many stages work at the same moment, and whether the engine is broken; set anew by each test."""

    now = most = 0
    broken = False
    lock = threading.Lock()

    @classmethod
    def work(cls, seconds: float) -> None:
        with cls.lock:
            cls.now += 1
            cls.most = max(cls.most, cls.now)
        time.sleep(seconds)
        with cls.lock:
            cls.now -= 1


def slowly(request, sample):
    Busy.work(0.01)
    return Reply(sample, "x", "stop")


@dataclass(frozen=True)
class SlowStage(Stage):
    reads: ClassVar = ("candidate_id",)

    def __call__(self, rows):
        Busy.work(0.05)
        return rows


def test_stages_that_need_all_rows_may_follow_each_other_and_others_may_stand_between(tmp_path: Path):
    head = [Sample(FakeEngine(), k=2), Whole(), Whole()]
    lists = {"two": head, "then": [*head, Score(ExactMatch()), Whole(), BestOfK()]}
    for _ in range(2):  # made, then read back
        result = run(lists, prompts(16), tmp_path, shard_prompts=3, quiet=True)
        counts = [(s["stage"], s["rows_in"], s["rows_out"]) for s in result.stages]
        assert counts == [
            ("Sample", 16, 32),
            ("Whole", 32, 16),
            ("Whole", 16, 8),
            ("Score", 8, 8),
            ("Whole", 8, 4),
            ("BestOfK", 4, 2),
        ]
        assert read_shards(result.published["two"]).num_rows == 8


def counted(request, sample):
    return Reply(sample, str(Busy.most), "stop")


def test_fresh_runs_again_and_publishes_what_it_made(tmp_path: Path):
    for answer in (1, 2):
        Busy.most = answer
        run({"out": [Sample(FakeEngine(counted))]}, prompts(4), tmp_path, fresh=True, quiet=True)
        assert set(read_shards(tmp_path / "out")["completion"].to_pylist()) == {str(answer)}


def test_progress_of_every_stage_ends_at_the_number_of_input_rows(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setattr("curation.progress.PLAIN_SECONDS", -1.0)
    stages = [Sample(FakeEngine(), k=4), Score(ExactMatch()), Whole()]
    run({"out": stages}, prompts(12), tmp_path, shard_prompts=5)
    lines = [line for line in capsys.readouterr().err.splitlines() if " of 12 rows" in line]
    for name in ("Sample", "Score", "Whole"):
        last = [line for line in lines if f" {name} " in line][-1]
        assert "12 of 12 rows" in last and "0 s left" in last and "-" not in last


def test_ctrl_c_leaves_what_can_be_resumed(tmp_path: Path):
    log = tmp_path / "asked"
    code = (
        "import sys\nfrom pathlib import Path\nfrom curation.runner import run\nfrom curation.sample import Sample\n"
        "from tests.fakes import FakeEngine, Slow, prompts\n"
        f"run({{'out': [Sample(FakeEngine(Slow(0.05), log={str(log)!r}))]}}, prompts(60), Path({str(tmp_path / 'run')!r}), "
        "shard_prompts=5, quiet=True)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[1], stderr=subprocess.PIPE)
    for _ in range(600):
        if len(asked(log)) >= 12:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=30)[1].decode()
    assert process.returncode != 0 and "KeyboardInterrupt" in said
    assert 12 <= len(asked(log)) < 60 and not (tmp_path / "run/out").exists()
    engine = FakeEngine(Slow(0.05), log=str(log))
    result = run({"out": [Sample(engine)]}, prompts(60), tmp_path / "run", shard_prompts=5, quiet=True)
    assert read_shards(result.published["out"]).num_rows == 60
    assert len(asked(log)) - len(set(asked(log))) <= 1  # the one in flight


def test_generation_overlaps_scoring(tmp_path: Path):
    Busy.most = 0
    run({"out": [Sample(FakeEngine(slowly)), SlowStage()]}, prompts(40), tmp_path, shard_prompts=8, quiet=True)
    assert Busy.most == 2


def breaking(request, sample):
    if Busy.broken and request.messages[-1]["content"] == "double 13":
        raise RuntimeError("the engine died")
    return Reply(sample, "1", "stop")


def test_a_fault_in_a_stage_keeps_what_was_committed(tmp_path: Path):
    log = tmp_path / "asked"
    engine = FakeEngine(breaking, log=str(log))
    Busy.broken = True
    with pytest.raises(RuntimeError, match="the engine died") as caught:
        run({"out": [Sample(engine)]}, prompts(20), tmp_path / "run", shard_prompts=6, quiet=True)
    assert "in stage 1 Sample(" in caught.value.__notes__[0] and "shard 00002" in caught.value.__notes__[0]
    assert "failed Sample(" in (tmp_path / "run/log.txt").read_text()
    Busy.broken = False
    run({"out": [Sample(engine)]}, prompts(20), tmp_path / "run", shard_prompts=6, quiet=True)
    counts = {line: asked(log).count(line) for line in asked(log)}
    assert len(counts) == 20 and sum(counts.values()) == 21  # the one in flight is asked twice


def test_a_pipeline_that_cannot_work_fails_before_an_engine_is_asked(tmp_path: Path):
    log = tmp_path / "asked"
    with pytest.raises(PipelineError, match="candidate_id"):
        run({"out": [BestOfK(), Sample(FakeEngine(log=str(log)))]}, prompts(3), tmp_path, quiet=True)
    assert not asked(log)


def test_rows_of_one_prompt_stay_together_whatever_their_order(tmp_path: Path):
    rows = Sample(FakeEngine(), k=3)(prompts(10).rows).rows
    mixed = rows.take([(7 * i) % 30 for i in range(30)])
    result = run(
        {"out": [Score(ExactMatch()), BestOfK(min_score=1.0)]}, Outcome(mixed), tmp_path, shard_prompts=4, quiet=True
    )
    assert read_shards(result.published["out"]).num_rows == 10


def test_what_was_set_aside_on_reading_is_kept_with_the_input(tmp_path: Path):
    from curation.stage import drops

    read = Outcome(prompts(3).rows, drops([("file:7", "malformed_json", "x")]))
    run({"out": [Sample(FakeEngine())]}, read, tmp_path, quiet=True)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["input"]["reasons"] == {"malformed_json": 1}
    assert ShardSet(tmp_path / record["input"]["folder"]).dropped().to_pylist()[0]["row_id"] == "file:7"
