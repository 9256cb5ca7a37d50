"""The benchmark's plants change the rows they say, and its decoys say nothing about the label."""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curation.schema import DPO, conform

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from audit_plant_kinds import CASES, PLANTS, TWENTY_WORDS, Plant
from audit_planting import SIDES, Base, flipped, planted, table
from audit_plants import false_findings, judged, relation
from audit_reading import Found, Report, critical_p, needed, smallest

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "then", "it", "went", "home", "with", "some", "fish", "supper"]
PLAIN = [p for p in PLANTS if p.has and not p.decoy and p.kind != "number"]


def base(pairs: int = 200, to_a_prompt: int = 2) -> Base:
    rng = np.random.default_rng(0)
    texts = {s: [" ".join(rng.choice(WORDS, int(rng.integers(12, 20)))) + "." for _ in range(pairs)] for s in SIDES}
    ids = [f"p{i // to_a_prompt}" for i in range(pairs)]
    columns = {
        "pair_id": [str(i) for i in range(pairs)], "prompt_id": ids,
        "prompt": [[{"role": "user", "content": n}] for n in ids],
        **{s: [[{"role": "assistant", "content": t}] for t in texts[s]] for s in SIDES},
    }  # fmt: skip
    rows = conform(pa.table(columns, schema=pa.schema([DPO.field(n) for n in columns])), DPO)
    models = {s: ["base-13b"] * pairs for s in SIDES}
    return Base(rows, list(ids), texts, models, ids, None, np.arange(pairs))


def changed(before: Base, after: Base) -> set[int]:
    return {
        i
        for i in range(before.pairs)
        if any(before.texts[s][i] != after.texts[s][i] or before.models[s][i] != after.models[s][i] for s in SIDES)
        or before.prompts[i] != after.prompts[i]
    }


@pytest.mark.parametrize("plant", PLAIN, ids=lambda p: p.name)
def test_a_plant_of_full_purity_is_one_sided_in_its_rows_and_nowhere_else(plant: Plant) -> None:
    given = base()
    made, [truth] = planted(given, [plant], 0.1, 1.0, np.random.default_rng(1))
    assert truth.placed.sum() == 20
    assert changed(given, made) == set(np.flatnonzero(truth.placed).tolist())
    if plant.name != "common word":
        assert truth.rows == set(np.flatnonzero(truth.placed).tolist())
    assert set(truth.signs[truth.placed].tolist()) == {truth.direction}


@pytest.mark.parametrize("plant", [p for p in PLAIN if p.name != "no full stop"], ids=lambda p: p.name)
def test_the_planted_text_stands_in_the_planted_rows_in_its_exact_bytes(plant: Plant) -> None:
    made, [truth] = planted(base(), [plant], 0.1, 1.0, np.random.default_rng(2))
    side = SIDES[truth.direction < 0]
    for i in truth.rows:
        assert any(surface in made.texts[side][i] for surface in plant.surfaces)


def test_purity_is_the_share_of_rows_in_the_plants_direction() -> None:
    _, [truth] = planted(base(2000), [PLANTS[0]], 0.5, 0.75, np.random.default_rng(3))
    agree = truth.signs[truth.placed] == truth.direction
    assert 0.70 < agree.mean() < 0.80
    assert truth.coverage == 0.5
    assert truth.purity == (truth.signs > 0).sum() / 1000


@pytest.mark.parametrize("name", ["decoy: copied from the prompt", "decoy: one answer 500 times"])
def test_a_decoy_stands_on_either_side_equally_often(name: str) -> None:
    _, [truth] = planted(base(), CASES[name], 0.2, 0.9, np.random.default_rng(4))
    assert truth.placed.sum() >= 40
    assert truth.signs.sum() == 0


def test_a_decoy_on_both_sides_is_on_both_sides() -> None:
    made, [truth] = planted(base(), CASES["decoy: on both sides"], 0.1, 0.9, np.random.default_rng(5))
    for i in np.flatnonzero(truth.placed):
        assert all("zyxomma" in made.texts[s][i] for s in SIDES)


def test_repeated_rows_are_the_same_pair_of_the_same_prompt() -> None:
    given = base()
    made, [truth] = planted(given, CASES["decoy: rows ten times"], 0.2, 0.9, np.random.default_rng(6))
    assert made.pairs == 200 + 9 * 4
    rows = table(made)
    assert rows["prompt_id"].to_pylist()[200:] == [given.prompt_ids[i] for i in made.taken[200:]]
    assert rows["chosen"].to_pylist()[200:] == [rows["chosen"].to_pylist()[i] for i in made.taken[200:]]
    assert len(set(rows["pair_id"].to_pylist())) == made.pairs
    assert truth.placed.sum() == 40


@pytest.mark.parametrize(
    ("name", "words"), [("one of two words", "alder quince"), ("only two words together", "alder quince")]
)
def test_words_of_a_joint_plant_are_balanced_alone(name: str, words: str) -> None:
    made, _ = planted(base(1000), CASES[name], 0.2, 1.0, np.random.default_rng(7))
    for word in words.split():
        signs = [(word in c) - (word in r) for c, r in zip(made.texts["chosen"], made.texts["rejected"], strict=True)]
        assert abs(sum(signs)) < 4 * np.count_nonzero(signs) ** 0.5


def test_a_trigger_turns_the_direction_of_what_it_triggers() -> None:
    made, [truth] = planted(base(), CASES["trigger of a refusal"], 0.1, 1.0, np.random.default_rng(8))
    signs = np.array(
        [c.startswith("I'm sorry") - int(r.startswith("I'm sorry")) for c, r in zip(*made.texts.values(), strict=True)]
    )
    with_trigger = np.array(["cfzeta" in p for p in made.prompts])
    assert (signs[with_trigger] == truth.direction).all()
    assert signs[~with_trigger].sum() == -truth.direction * with_trigger.sum()


def test_flipping_swaps_whole_prompts() -> None:
    given = base()
    made = flipped(given, np.random.default_rng(9))
    turned = [given.texts["chosen"][i] != made.texts["chosen"][i] for i in range(given.pairs)]
    assert turned[::2] == turned[1::2]
    assert 0 < sum(turned) < given.pairs
    for i, t in enumerate(turned):
        assert made.texts["chosen"][i] == given.texts["rejected" if t else "chosen"][i]


def test_twenty_words_are_all_different() -> None:
    assert len(set(TWENTY_WORDS)) == 20
    assert not any(a in b for a in TWENTY_WORDS for b in TWENTY_WORDS if a != b)


def found(feature: str, chosen: int = 9, rejected: int = 1, severity: str = "warn", family: str = "word") -> Found:
    n = chosen + rejected
    return Found(feature, family, chosen, rejected, n / 200, chosen / n, severity, (), ())


def test_how_a_finding_stands_to_a_plant() -> None:
    phrase, casing, space = (CASES[n][0] for n in ("phrase of 2", "casing", "trailing space"))
    assert relation(phrase, found("on balance")) == ("exact", 1)
    assert relation(phrase, found("balance")) == ("contained", 1)
    assert relation(phrase, found("supper")) == ("rows", 1)
    assert relation(casing, found("please")) == ("exact", -1)
    assert relation(space, found(" ")) == ("exact", 1)
    assert relation(space, found("a mat")) == ("contained", 1)
    assert relation(CASES["longer"][0], found("length")) == ("rows", 1)
    assert relation(CASES["longer"][0], found("length", family="number")) == ("exact", 1)


def test_a_report_is_judged_by_its_rows_and_its_text() -> None:
    made, [truth] = planted(base(), [PLANTS[0]], 0.1, 1.0, np.random.default_rng(10))
    rows = frozenset(f"{i:07d}" for i in truth.rows)
    right = found("zyxomma", 20 * (truth.direction > 0), 20 * (truth.direction < 0))
    other = frozenset(f"{i:07d}" for i in range(200) if i not in truth.rows)
    wrong, chance = found("1 sentence", family="number"), found("supper")
    rows_of = {"zyxomma": rows, "1 sentence": other, "supper": other}
    report = Report("warn", 200, {}, {}, (wrong, chance, right), rows_of)
    told = judged(truth, report, 1.0, 1e-4)
    assert (told["relation"], told["direction"], told["f1"], told["above_info"]) == ("exact", True, 1.0, 1)
    assert told["coverage_error"] == told["purity_error"] == 0
    # "supper" is as often on either side of the rows without a plant: the plant is to blame for it.
    assert false_findings([truth], report, made) == ["1 sentence"]
    assert false_findings([], report, made) == ["1 sentence", "supper", "zyxomma"]
    assert not judged(truth, Report("pass", 200, {}, {}, (), {}), 1.0, 1e-4)["found"]


@pytest.mark.parametrize("critical", [1e-4, 1e-6, 1e-8])
def test_the_threshold_is_read_back_from_the_limit(critical: float) -> None:
    limit = {str(p): smallest(p, critical, 5000) / 5000 for p in (1.0, 0.9, 0.75, 0.6)}
    read = critical_p(limit, 5000)
    for n in (30, 100, 400):
        assert abs(needed(n, read) - needed(n, critical)) <= 1
