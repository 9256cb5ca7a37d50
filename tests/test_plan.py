"""The plan: nothing on disk is touched by looking, the reason a stage runs is true, no folder of the user's is in danger."""

from pathlib import Path

import pyarrow as pa
import pytest

from curation.best_of_k import BestOfK
from curation.errors import InputError, PipelineError
from curation.plan import cut, difference, make_plan
from curation.rewards import ExactMatch
from curation.runner import plan, run
from curation.sample import Sample
from curation.score import Score
from curation.shards import read_shards
from curation.stage import Outcome
from tests.fakes import FakeEngine, prompts

LIST = {"out": [Sample(FakeEngine(), k=2), Score(ExactMatch()), BestOfK(min_score=1.0)]}


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_dry_run_touches_nothing_even_with_fresh(tmp_path: Path):
    run(LIST, prompts(12), tmp_path, shard_prompts=6, quiet=True)
    before = files(tmp_path)
    text = str(plan(LIST, prompts(12), tmp_path, 6, fresh=True))
    assert text.count("run   2 of 2 shards: fresh") == 3 and files(tmp_path) == before
    assert str(plan(LIST, prompts(12), tmp_path, 6)).count("reuse 2 of 2") == 3


def test_a_run_that_ended_before_its_first_shard_says_so(tmp_path: Path):
    run(LIST, prompts(12), tmp_path, shard_prompts=6, quiet=True)
    for record in tmp_path.glob("stages/01-*/commits/*"):
        record.unlink()
    assert "interrupted before its first shard" in str(plan(LIST, prompts(12), tmp_path, 6))


def test_a_difference_names_the_setting_and_both_values():
    assert difference({"k": 4, "e": {"n": 1}}, {"k": 8, "e": {"n": 2}}) == ["e.n 1 -> 2", "k 4 -> 8"]
    assert difference({"k": 4}, {"k": 4}) == []


@pytest.mark.parametrize("name", ["stages", "../up", "a/b", "", ".hidden", "run.json"])
def test_a_pipeline_has_a_plain_name(tmp_path: Path, name: str):
    with pytest.raises(PipelineError, match="the name"):
        plan({name: LIST["out"]}, prompts(3), tmp_path)


def test_a_folder_that_no_run_made_is_never_replaced(tmp_path: Path):
    (tmp_path / "out").mkdir()
    plan(LIST, prompts(3), tmp_path)  # an empty one harms nobody
    (tmp_path / "out/thesis.txt").write_text("years")
    with pytest.raises(InputError, match="no run made"):
        run(LIST, prompts(3), tmp_path, quiet=True)
    assert (tmp_path / "out/thesis.txt").read_text() == "years" and not (tmp_path / "stages").exists()


def test_rows_that_share_an_id_are_refused_before_anything_runs(tmp_path: Path):
    twice = Outcome(pa.concat_tables([prompts(3).rows, prompts(2).rows]))
    with pytest.raises(InputError, match="2 rows whose prompt_id"):
        run(LIST, twice, tmp_path, quiet=True)
    assert not any(tmp_path.iterdir())


def test_answers_that_came_in_with_other_scores_are_another_input(tmp_path: Path):
    rows = Score(ExactMatch())(Sample(FakeEngine(), k=2)(prompts(4).rows).rows).rows
    worse = rows.set_column(rows.column_names.index("score"), "score", pa.array([float("nan")] * rows.num_rows))
    choose = {"out": [BestOfK(min_score=1.0)]}
    assert read_shards(run(choose, Outcome(rows), tmp_path, quiet=True).published["out"]).num_rows == 4
    assert read_shards(run(choose, Outcome(worse), tmp_path, quiet=True).published["out"]).num_rows == 0


def test_prompts_are_known_by_their_ids_alone(tmp_path: Path):
    rows = prompts(4).rows
    renamed = rows.set_column(rows.column_names.index("source"), "source", pa.array(["elsewhere"] * 4))
    plans = [make_plan(LIST, r, tmp_path, 256) for r in (rows, renamed, rows.slice(1))]
    assert plans[0].input_fingerprint == plans[1].input_fingerprint != plans[2].input_fingerprint


def test_slices_hold_whole_prompts_in_order_of_first_appearance():
    rows = pa.table({"prompt_id": ["a", "b", "a", "c", "b"], "n": range(5)})
    assert [s["n"].to_pylist() for s in cut(rows, 2)] == [[0, 2, 1, 4], [3]]
    assert [s["prompt_id"].to_pylist() for s in cut(rows, 1)] == [["a", "a"], ["b", "b"], ["c"]]
