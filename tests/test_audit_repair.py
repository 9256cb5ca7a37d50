"""A repair leaves no pull, keeps what can be kept, changes nothing the second time, and accounts for every row."""

import hashlib
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.optimize import linprog, minimize_scalar

from curation.audit import audit
from curation.audit.repairs import METHODS, Repair, Target, repair, targets_of
from curation.audit.repairs.balance import most_kept
from curation.audit.repairs.canonicalise import canonical, vendorless
from curation.audit.repairs.cuts import joined
from curation.audit.repairs.files import accounted, markdown, proof_of
from curation.audit.repairs.mismatch import deranged
from curation.audit.repairs.offset import FOLDS, folded_gamma
from curation.audit.repairs.pairs import pairs_of as clean
from curation.audit.repairs.pulls import pulls_of
from curation.audit.repairs.reweight import effective, entropy_balanced
from curation.audit.repairs.rewrite import Rewrite
from curation.audit.repairs.targets import read_targets, signs_of
from curation.engine import Reply, Request
from curation.errors import InputError
from curation.schema import DPO, conform
from pipelines.cli import main
from tests.fakes import FakeEngine, random_model
from training.preference_losses import LossSettings, Ratios, sigmoid

WORDS = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in ("lm", "rn", "st", "nd")]
Sides = list[tuple[str, str]]


def rows_of(sides: Sides, prompts: list[str] | None = None, **more: list) -> pa.Table:
    """Rows of schema.DPO."""
    turns = [[[{"role": "assistant", "content": text}] for text in column] for column in zip(*sides, strict=True)]
    names = prompts or [f"p{i}" for i in range(len(sides))]
    columns = {
        "pair_id": [f"{i:05d}" for i in range(len(sides))], "prompt_id": names,
        "prompt": [[{"role": "user", "content": n}] for n in names], "chosen": turns[0], "rejected": turns[1],
        "kind": ["imported"] * len(sides), **more,
    }  # fmt: skip
    return conform(pa.table(columns, schema=pa.schema([DPO.field(n) for n in columns])), DPO)


def random_sides(n: int, seed: int = 0, words: int = 25) -> Sides:
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, len(WORDS) + 1)

    def text() -> str:
        return " ".join(rng.choice(WORDS, max(3, rng.poisson(words)), p=weights / weights.sum())) + "."

    return [(text(), text()) for _ in range(n)]


def planted(n: int = 400, both: bool = True) -> pa.Table:
    """ " indeed" behind the chosen side of three in eight pairs, and (`both`) behind the rejected of one in eight."""
    made = []
    for i, (a, b) in enumerate(random_sides(n)):
        made.append((a + " indeed", b) if i % 8 < 3 else (a, b + " indeed") if both and i % 8 == 3 else (a, b))
    return rows_of(made)


def texts(rows: pa.Table) -> Sides:
    return [
        (a[-1]["content"], b[-1]["content"])
        for a, b in zip(rows["chosen"].to_pylist(), rows["rejected"].to_pylist(), strict=True)
    ]


def the_same_twice(made: Repair, method, targets: list[Target] | None = None) -> None:
    again = repair(made.outcome.rows, method, targets)
    scores = ["chosen_score", "rejected_score", "margin"]  # NaN, which equals nothing
    assert again.outcome.rows.drop(scores).equals(made.outcome.rows.drop(scores)) and again.manifest.num_rows == 0


def accounts(rows: pa.Table, made: Repair) -> None:
    """Every row is as it was, or the manifest says what became of it."""
    was = dict(zip(rows["pair_id"].to_pylist(), texts(rows), strict=True))
    now = dict(zip(made.outcome.rows["pair_id"].to_pylist(), texts(made.outcome.rows), strict=True))
    listed = {m["pair_id"]: m for m in made.manifest.to_pylist()}
    assert set(was) - set(now) == {i for i, m in listed.items() if m["action"] == "dropped"}
    assert set(now) - set(was) == {i for i, m in listed.items() if m["action"] == "added"}
    assert set(was) - set(now) == set(made.outcome.dropped["row_id"].to_pylist())
    for i, sides in now.items():
        if i not in listed:
            assert was[i] == sides
            continue
        for side, text in zip(("chosen", "rejected"), sides, strict=True):
            assert listed[i][f"{side}_after"] == hashlib.sha256(text.encode()).hexdigest()
            if i in was:
                old = was[i][0 if side == "chosen" else 1]
                assert listed[i][f"{side}_before"] == hashlib.sha256(old.encode()).hexdigest()
    counts = accounted(made)
    assert (
        counts["as_they_were"] + counts["changed"] + counts["weighted"] + counts["offset"] + counts["dropped"]
        == rows.num_rows
    )


# ---- balance

signs_small = st.integers(1, 3).flatmap(
    lambda f: st.lists(st.lists(st.sampled_from([-1, 0, 1]), min_size=f, max_size=f), min_size=1, max_size=9)
)


@settings(max_examples=120, deadline=None)
@given(signs_small, st.sampled_from([0.0, 0.1, 0.25]))
def test_balance_keeps_as_many_as_any_subset_and_never_more_than_its_bound(columns: list[list[int]], tolerance: float):
    signs = np.array(columns).T
    best = max(
        sum(keep)
        for keep in itertools.product((0, 1), repeat=signs.shape[1])
        if (np.abs(signs @ np.array(keep)) <= tolerance * sum(keep) + 1e-9).all()
    )
    found = most_kept(sparse.csr_matrix(signs.astype(np.int32)), tolerance)
    assert (np.abs(signs @ found.keep) <= tolerance * found.keep.sum() + 1e-9).all()
    assert found.keep.sum() == best <= found.bound


def test_balance_of_many_features_stays_within_a_hundredth_of_its_bound():
    rng = np.random.default_rng(0)
    chances = rng.uniform(0.3, 0.7, (30, 1))
    signs = (rng.random((30, 3000)) < 0.1) * np.where(rng.random((30, 3000)) < chances, 1, -1)
    found = most_kept(sparse.csr_matrix(signs.astype(np.int32)), 0.01)
    assert found.keep.sum() >= 0.99 * found.bound and found.bound < 3000
    assert (np.abs(signs @ found.keep) <= 0.01 * found.keep.sum() + 1e-9).all()


def test_balance_leaves_no_pull_keeps_most_pairs_and_does_nothing_twice():
    rows = planted()
    made = repair(rows, METHODS["balance"]())
    assert made.proof.proven and made.proof.checked
    assert all(abs(c.after.value) <= 0.01 < abs(c.before.value) for c in made.proof.checked if c.listed_by == "audit")
    assert 0.74 < made.kept <= made.proof.notes["bound"] and not made.proof.fresh  # 100 less a hundredth must go
    assert set(made.manifest["action"].to_pylist()) == {"dropped"}
    accounts(rows, made)
    the_same_twice(made, METHODS["balance"]())


def test_the_order_of_rows_changes_nothing():
    rows = planted()
    order = np.random.default_rng(3).permutation(rows.num_rows)
    there, back = (repair(r, METHODS["balance"]()) for r in (rows, rows.take(pa.array(order))))
    assert sorted(there.outcome.rows["pair_id"].to_pylist()) == sorted(back.outcome.rows["pair_id"].to_pylist())
    assert there.proof.as_dict() == back.proof.as_dict()


def test_a_feature_without_counter_examples_costs_its_pairs():
    sides = [("Sure! " + a, b) if i % 3 else (a, b) for i, (a, b) in enumerate(random_sides(300))]
    made = repair(rows_of(sides), METHODS["balance"]())
    assert 0.32 < made.kept < 0.36 and any("regenerate" in a for a in made.proof.advice)
    with pytest.raises(InputError, match="no pair left"):
        repair(rows_of([("Sure! " + a, b) for a, b in random_sides(100)]), METHODS["balance"](), only=["Sure!"])


def test_rows_that_stand_twice_leave_as_that():
    rows = planted(200)
    twice = pa.concat_tables(
        [rows, rows.slice(0, 5).set_column(0, "pair_id", pa.array([f"again{i}" for i in range(5)]))]
    )
    made = repair(twice, METHODS["balance"]())
    assert made.outcome.reasons()["duplicate_pair"] == 5
    accounts(twice, made)


# ---- reweight


def test_weights_hold_every_sum_within_the_tolerance_and_are_as_near_as_can_be():
    rng = np.random.default_rng(1)
    signs = sparse.csr_matrix(
        ((rng.random((4, 600)) < 0.3) * np.where(rng.random((4, 600)) < 0.62, 1, -1)).astype(np.int32)
    )
    given_weights = rng.uniform(0.5, 2.0, 600)
    found = entropy_balanced(signs, given_weights, 0.01, 0.01, 100.0)
    assert found.certificate is None and np.isclose(found.weights.mean(), 1)
    assert (np.abs(signs @ found.weights) <= 0.01 * found.weights.sum()).all() and effective(found.weights) > 300
    # As near as can be: the log-ratio is a combination of the features, as the dual says it must be.
    base = np.column_stack([signs.T.toarray(), np.ones(600)])
    log = np.log(found.weights / given_weights)
    assert np.abs(base @ np.linalg.lstsq(base, log, rcond=None)[0] - log).max() < 1e-8


def test_weights_that_cannot_be_come_with_a_combination_that_says_why():
    rng = np.random.default_rng(2)
    never = (np.arange(500) < 300).astype(int)  # one-sided in 60 %, always the chosen side
    other = np.where(rng.random(500) < 0.5, 1, -1)
    signs = sparse.csr_matrix(np.stack([never, other]).astype(np.int32))
    found = entropy_balanced(signs, np.ones(500), 0.01)
    assert found.certificate is not None and found.certificate.features[0] > 0.9
    share = np.array([found.certificate.features.get(f, 0.0) for f in range(2)])
    assert np.isclose(np.abs(share).sum(), 1)
    least = linprog(share @ signs.toarray() / 500, A_eq=np.ones((1, 500)), b_eq=[500], bounds=[(0.1, 10)] * 500)
    assert least.fun >= found.certificate.least - 1e-7 > found.certificate.allowed == 0.01
    assert found.weights.min() > 0.0999 and found.weights.max() < 10.001 and found.tolerance > 0.05


def test_reweight_writes_weights_a_trainer_reads_and_does_nothing_twice():
    rows = planted()
    rows = rows.set_column(rows.column_names.index("weight"), "weight", pa.array([2.0] + [None] * 399, pa.float64()))
    made = repair(rows, METHODS["reweight"]())
    weights = made.outcome.rows["weight"].to_numpy()
    assert made.proof.proven and np.isclose(weights.mean(), 1) and made.kept == 1 and 0.7 < made.proof.ess < 1
    assert weights[0] / weights[8] == pytest.approx(2)  # the same signs: twice the weight as before
    accounts(rows, made)
    the_same_twice(made, METHODS["reweight"](), targets_of(made.before.findings))


# ---- canonicalise


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("ab \n\r\t*•-`“’é́\u200b\u200d\u200c\u00a0\u202e\u2028א你\U0001f468"), max_size=14))
def test_doing_it_twice_is_doing_it_once(text: str):
    assert canonical(canonical(text)) == canonical(text)


def test_canonical_texts():
    family = "\U0001f468\u200d\U0001f469"
    cases = {
        " a\u200bb\u00a0c\r\nd ": "ab c\nd", "e\u0301": "é", "“a” ‘b’": "\"a\" 'b'", "• a\n  * b": "- a\n  - b", family: family,
        "a\u200db": "ab", "क्\u200dष": "क्\u200dष", "```\n* “x”\n```": "```\n* “x”\n```", "2 * 3": "2 * 3", "*a* b": "*a* b",
    }  # fmt: skip
    assert {k: canonical(k) for k in cases} == cases
    assert vendorless("I am ChatGPT, by OpenAI; googled, gptx") == "I am [name], by [name]; googled, gptx"


def test_canonical_sides_differ_in_nothing_unseen():
    sides = [(a + "\n", b.replace(" ", "\u00a0", 1).replace(" ", " \u200b", 1)) for a, b in random_sides(150)]
    rows = rows_of([*sides, ("same ", "same")])
    made = repair(rows, METHODS["canonicalise"]())
    assert made.proof.proven and made.before.verdict == "block" and made.after.verdict == "pass"
    assert all(c.after.value == 0 for c in made.proof.checked if c.covered) and made.proof.checked
    assert made.outcome.reasons() == {"no_difference": 1}
    accounts(rows, made)
    the_same_twice(made, METHODS["canonicalise"]())


def test_canned_openers_closers_and_vendors_go_from_both_sides():
    sides = []
    for i, (a, b) in enumerate(random_sides(400)):
        a = "Well now, " + a if i % 5 < 2 else a
        sides.append((a + " So it goes" if i % 7 < 2 else a, "Claude here. " + b if i % 3 == 0 else b))
    made = repair(rows_of([*sides, ("I am Bard.", "Well now, I am.")]), METHODS["canonicalise"]())
    joint = " ".join(t for pair in texts(made.outcome.rows) for t in pair)
    assert made.before.verdict == "block" and not any(w in joint for w in ("Well now", "So it goes", "Claude", "Bard"))
    ends = [c for c in made.proof.checked if c.family in ("opener", "closer")]
    assert ends and all(c.covered and c.after.value == 0 for c in ends)
    assert texts(made.outcome.rows)[-1] == ("I am [name].", "I am.")


# ---- edit


def test_what_is_left_around_a_cut_reads_on():
    cases = [
        ("", "Sure", ", I can. Yes", "opener", "I can. Yes"), ("", "Sure", ", it is", "opener", "It is"),
        ("It is so", " indeed", "", "closer", "It is so"), ("a ", "very", " good", "word", "a good"),
        ("Yes", "!", " Go", "word", "Yes. Go"), ("Yes. ", "Well", ", it is", "word", "Yes. It is"),
        ("a", "\n\n", "b", "word", "a\nb"), ("a ", "maybe", ", b", "word", "a, b"), ("Sorry", "!", "", "word", "Sorry."),
    ]  # fmt: skip
    for before, cut, after, family, wanted in cases:
        assert joined(before, cut, after, family) == wanted


PLANTS: dict[str, Callable[[str], str]] = {
    "word": lambda t: t.replace(" ", " zyxomma ", 1),
    "phrase": lambda t: t.replace(" ", " zyx omma ", 1),
    "opener": lambda t: "Well now, " + t,
    "closer": lambda t: t + " So it goes",
    "exclamation": lambda t: t[:-1] + "!",
    "trailing newline": lambda t: t + "\n",
    "emoji": lambda t: t + " \U0001f31f",
    "bullet": lambda t: t + "\n* " + t,
}


@pytest.mark.parametrize("name", PLANTS)
def test_an_edit_takes_out_what_was_planted_and_nothing_twice(name: str):
    plant = PLANTS[name]
    rows = rows_of([(plant(a) if i % 3 == 0 else a, b) for i, (a, b) in enumerate(random_sides(240))])
    made = repair(rows, METHODS["edit"]())
    covered = [c for c in made.proof.checked if c.covered]
    assert covered and all(c.after.value == 0 for c in covered) and max(abs(c.before.value) for c in covered) > 0.3
    accounts(rows, made)
    the_same_twice(made, METHODS["edit"](), [Target(c.family, c.feature, c.key) for c in made.proof.checked])


def test_a_pair_that_differed_in_the_feature_alone_leaves():
    sides = [(a.replace(" ", " zyxomma ", 1), b) for a, b in random_sides(120)]
    made = repair(rows_of([*sides, ("zyxomma this", "this"), ("zyxomma", "that")]), METHODS["edit"](), only=["zyxomma"])
    assert made.outcome.reasons() == {"edit_failed": 1, "no_difference": 1}


def test_counter_examples_are_added_until_the_sides_have_it_alike():
    sides = []
    for i, (a, b) in enumerate(random_sides(400)):
        sides.append(
            ("Well now, " + a, "Well now, " + b) if i % 4 == 0 else ("Well now, " + a, b) if i % 4 == 1 else (a, b)
        )
    rows, method = rows_of(sides), METHODS["edit"](copies=True)
    made = repair(rows, method, only=["Well now,"])
    (first, *_) = made.proof.checked
    assert first.equivalent and first.before.value > 0.2 and made.kept == 1
    added = made.outcome.rows.filter(pa.compute.equal(made.outcome.rows["kind"], "edited"))
    assert made.outcome.rows.num_rows == 400 + added.num_rows and 90 <= added.num_rows <= 100
    accounts(rows, made)
    the_same_twice(made, method, [Target(c.family, c.feature, c.key) for c in made.proof.checked])


# ---- mismatch


def test_mismatched_answers_cancel_and_every_pull_shrinks_as_said():
    prompts = [f"p{i // 3}" for i in range(300)]
    rows = rows_of([(a + " indeed" if i % 2 else a, b) for i, (a, b) in enumerate(random_sides(300))], prompts)
    made = repair(rows, METHODS["mismatch"]())
    shrinks = made.proof.notes["shrinks_to"]
    textual = [c for c in made.proof.checked if c.key]
    assert shrinks == 0.5 and textual and all(np.isclose(c.after.value, shrinks * c.before.value) for c in textual)
    added = made.outcome.rows.filter(pa.compute.equal(made.outcome.rows["kind"], "mismatch"))
    home = dict(zip([a for a, _ in texts(rows)], prompts, strict=True))
    assert all(home[a] == p != home[b] for (a, b), p in zip(texts(added), added["prompt_id"].to_pylist(), strict=True))
    accounts(rows, made)
    the_same_twice(made, METHODS["mismatch"]())


def test_no_answer_is_set_against_its_own_prompt():
    prompts = ["a"] * 3 + ["b"] * 2 + ["c"]
    order = deranged(prompts)
    assert sorted(order.tolist()) == list(range(6)) and all(prompts[i] != prompts[j] for i, j in enumerate(order))
    with pytest.raises(InputError, match="one prompt"):
        deranged(["a"] * 3 + ["b"] * 2)


# ---- offset


def test_the_offset_says_what_the_feature_says_so_that_a_model_need_not():
    rows = planted()
    made = repair(rows, METHODS["offset"](), only=["indeed"])
    pairs, _ = clean(made.outcome.rows)
    signs = torch.tensor(
        signs_of(pairs.corpus, targets_of(made.before.findings, ["indeed"])).toarray()[0], dtype=torch.float64
    )
    offsets = torch.tensor(pairs.offsets)

    def learned(offset: torch.Tensor) -> float:
        """The weight DPO gives the feature, were it all a model could see."""

        def loss(weight: float) -> float:
            nothing, one = torch.zeros_like(signs), torch.ones_like(signs)
            return float(sigmoid(Ratios(weight * signs, nothing, one, one, offset), LossSettings(beta=1.0)).mean())

        return float(minimize_scalar(loss, bounds=(-8, 8), method="bounded").x)

    assert learned(torch.zeros_like(signs)) > 0.8 and abs(learned(offsets)) < 0.05 and learned(-offsets) > 1.6
    assert (offsets[signs > 0] < 0).all() and (offsets[signs < 0] > 0).all() and (offsets[signs == 0] == 0).all()
    (checked,) = made.proof.checked
    assert checked.before.value > 0.2 and checked.equivalent
    accounts(rows, made)
    the_same_twice(made, METHODS["offset"](), targets_of(made.before.findings, ["indeed"]))


def test_a_pairs_offset_does_not_know_its_own_prompt():
    rng = np.random.default_rng(0)
    signs, groups = rng.choice([-1, 0, 1], (2, 100)), np.arange(100) // 2
    flipped = np.where(groups % FOLDS == 3, -signs, signs)
    one, two = (folded_gamma(sparse.csr_matrix(s), groups, np.ones(100), 1.0) for s in (signs, flipped))
    assert np.allclose(one[3], two[3]) and not np.allclose(one[2], two[2])


# ---- rewrite


def plainly(request: Request, sample: int) -> Reply:
    """The answer with its words in another order; not for those that say "balm bard" or ask for trouble."""
    text = request.messages[-1]["content"].rsplit("Answer:\n", 1)[1]
    if text.startswith("long"):
        return Reply(sample, text + " and more" * 20, "stop", 1)
    if text.startswith("cut"):
        return Reply(sample, text, "length", 1)
    if text.startswith("down"):
        return Reply(sample, "", "error", error="failed: 503")
    if text.startswith("astray"):
        return Reply(sample, "z" * len(text), "stop", 1)
    return Reply(sample, " ".join(reversed(text.split())), "stop", 1)


def test_a_reply_that_fails_keeps_the_original_on_both_sides(tmp_path: Path):
    sides = random_sides(60)
    for i, word in enumerate(("long", "cut", "down", "astray")):
        sides[i] = (f"{word} {sides[i][0]}", sides[i][1])
    rows, engine = rows_of(sides), FakeEngine(plainly, str(tmp_path / "log"))
    made = repair(rows, Rewrite(engine))
    kept = dict(zip(made.outcome.rows["pair_id"].to_pylist(), texts(made.outcome.rows), strict=True))
    assert [kept[f"{i:05d}"] for i in range(4)] == sides[:4]
    assert made.proof.notes["kept_as_is"] == {
        "other_length": 1,
        "truncated": 1,
        "engine_failed": 1,
        "says_something_else": 1,
    }
    assert all(kept[f"{i:05d}"] == tuple(" ".join(reversed(t.split())) for t in sides[i]) for i in range(4, 60))
    accounts(rows, made)
    (tmp_path / "log").unlink()
    again = Rewrite(FakeEngine(plainly, str(tmp_path / "log")))(clean(made.outcome.rows)[0], [])
    assert again.notes["rewritten"] == 0 and (tmp_path / "log").read_text().count("\n") == 8  # the four that had failed


def test_a_model_in_this_process_rewrites_through_the_same_protocol():
    from curation.transformers_engine import TransformersEngine

    rows = rows_of(
        [("3 + 4 = 7", "3 + 4 = 8"), ("2 + 2 = 4", "2 + 2 = 5")]
        + [(f"{i} is {i}", f"{i} is {i + 1}") for i in range(6)]
    )
    made = Rewrite(TransformersEngine(str(random_model()), device="cpu"), template="{answer}", max_tokens=8)(
        clean(rows)[0], []
    )
    assert made.notes["rewritten"] + sum(made.notes["kept_as_is"].values()) == 8


# ---- the proof


def test_each_half_is_mended_by_what_the_other_half_had_listed():
    made = repair(planted(800), METHODS["balance"]())
    assert len(made.proof.held_out) == 2 and sum(h.pairs for h in made.proof.held_out) == 800
    for half in made.proof.held_out:
        assert half.listed == half.equivalent > 0 and half.largest_before > 0.1 >= 0.01 >= half.largest_after
        assert half.above_info_before > half.above_info_after == 0


def test_the_probe_tells_less_and_its_interval_says_so():
    drop = repair(planted(800), METHODS["edit"]()).proof.bits
    assert drop.before > 0.05 > drop.after and 0 < drop.low < drop.before - drop.after < drop.high


def test_intervals_of_a_pull_know_prompts():
    sides = [(a + " indeed", b) if i % 2 else (a, b) for i, (a, b) in enumerate(random_sides(200))]
    alone, together = rows_of(sides), rows_of(sides, [f"p{i % 2}{i // 20}" for i in range(200)])
    target = targets_of(audit(alone).findings)
    one, two = (
        next(p for t, p in zip(target, pulls_of(clean(r)[0], target), strict=True) if "indeed" in t.feature)
        for r in (alone, together)
    )
    assert np.allclose([one.value, two.value], 0.5) and two.high - two.low > 2 * (one.high - one.low)


def test_a_fingerprint_is_told_apart_from_a_word():
    rng = np.random.default_rng(0)
    own, theirs = ([f"{a}{b}{end}" for a, b in itertools.product(WORDS[:20], WORDS[20:40])] for end in "ax")
    sides = [(" ".join(rng.choice(own, 40)), " ".join(rng.choice(theirs, 40))) for _ in range(200)]
    assert any("regenerate" in a for a in repair(rows_of(sides), METHODS["canonicalise"]()).proof.advice)
    assert not repair(planted(), METHODS["edit"]()).proof.advice


HOSTILE = "<script>alert(1)</script>|`"


def test_the_proof_shows_texts_of_the_data_as_texts():
    rows = rows_of([(HOSTILE + " " + a, b) for a, b in random_sides(80)])
    made = repair(rows, METHODS["edit"]())
    assert "<script" not in markdown(made) and "proven" in markdown(made)
    json.dumps(proof_of(made), allow_nan=False)


# ---- the command


def audited(rows: pa.Table, folder: Path) -> list[str]:
    """Pairs and their audit as files; the words of a repair so far."""
    pq.write_table(rows, folder / "pairs.parquet")
    (folder / "audit.json").write_text(json.dumps(audit(rows).as_dict()))
    return [
        "repair",
        str(folder / "pairs.parquet"),
        "--audit",
        str(folder / "audit.json"),
        "--out",
        str(folder / "mended"),
    ]


def test_repair_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = audited(planted(), tmp_path)
    assert main([*words, "--only", "indeed"]) == 0
    assert "PROVEN" in capsys.readouterr().out
    out = tmp_path / "mended"
    proof = json.loads((out / "proof.json").read_text())
    assert proof["proven"] and "indeed" in proof["checked"][0]["feature"] and len(proof["held_out"]) == 2
    assert 290 <= pq.read_table(out / "pairs.parquet").num_rows <= 310
    assert "indeed |" in (out / "proof.md").read_text() and (out / "audit.json").exists()
    assert pq.read_table(out / "manifest.parquet").num_rows == proof["rows"]["dropped"]


@pytest.mark.parametrize(
    "more",
    [
        ["--only", "nothing"],
        ["--tolerance", "2"],
        ["--method", "rewrite"],
        ["--copies"],
        ["--model", "m"],
        ["--method", "mend"],
    ],
)
def test_wrong_words_are_one_line(more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main([*audited(planted(80), tmp_path), *more]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_audit_of_other_pairs_is_refused(tmp_path: Path):
    words = audited(planted(), tmp_path)
    pq.write_table(rows_of(random_sides(400, 7)), tmp_path / "pairs.parquet")
    assert main(words) == 2
    for damaged in ("{", "[]", '{"findings": [{}], "pairs": 400}'):
        (tmp_path / "audit.json").write_text(damaged)
        with pytest.raises(InputError, match=r"audit\.json"):
            read_targets(str(tmp_path / "audit.json"), 400, "")
    with pytest.raises(InputError):
        read_targets(str(tmp_path / "nowhere.json"), 400, "")
