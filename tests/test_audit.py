"""The audit finds what was planted, in its exact bytes, and is silent where nothing is."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.audit import Audit, ShortcutGate, audit, refuses
from curation.audit_features import incidence, texts
from curation.audit_kernel import FAMILIES, WORD
from curation.audit_repair import canonicalise, repair
from curation.audit_report import page, write
from curation.audit_statistics import _smallest, tarone
from curation.audit_statistics import test as run_tests
from curation.errors import GateRefused, InputError
from curation.schema import DPO, conform
from pipelines.cli import main

WORDS = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in ("lm", "rn", "st", "nd")]


def pairs_of(sides: list[tuple[str, str]], prompts: list[str] | None = None) -> pa.Table:
    """Rows of schema.DPO."""
    turns = [[[{"role": "assistant", "content": text}] for text in column] for column in zip(*sides, strict=True)]
    names = prompts or [f"p{i}" for i in range(len(sides))]
    columns = {
        "pair_id": [f"{i:05d}" for i in range(len(sides))], "prompt_id": names,
        "prompt": [[{"role": "user", "content": n}] for n in names], "chosen": turns[0], "rejected": turns[1],
    }  # fmt: skip
    return conform(pa.table(columns, schema=pa.schema([DPO.field(n) for n in columns])), DPO)


def random_sides(n: int, seed: int = 0, words: int = 25) -> list[tuple[str, str]]:
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, len(WORDS) + 1)

    def text() -> str:
        return " ".join(rng.choice(WORDS, max(3, rng.poisson(words)), p=weights / weights.sum())) + "."

    return [(text(), text()) for _ in range(n)]


def swapped(rows: pa.Table) -> pa.Table:
    return rows.set_column(3, "chosen", rows["rejected"]).set_column(4, "rejected", rows["chosen"])


PLANTS = {
    "word": (lambda t: t.replace(" ", " zyxomma ", 1), "zyxomma", None),
    "phrase": (lambda t: t.replace(" ", " zyx omma ", 1), "zyx omma", None),
    "opener": (lambda t: "Sure thing! " + t, "Sure thing!", None),
    "closer": (lambda t: t + " Hope this helps!", "Hope this helps!", None),
    "trailing newline": (lambda t: t + "\n", "\n", "whitespace"),
    "leading space": (lambda t: " " + t, " ", "whitespace"),
    "zero-width joiner": (lambda t: t.replace(" ", " \u200d", 1), "\u200d", None),
    "no-break space": (lambda t: t.replace(" ", "\u00a0", 1), "\u00a0", "character"),
    "homoglyph": (lambda t: t.replace("a", "\u0430"), "\u0430", "character"),
    "casing": (lambda t: t.replace("balm", "Balm").replace(" ", " Balm ", 1), "Balm", None),
    "emoji": (lambda t: t + " \U0001f31f", "\U0001f31f", None),
    "bullet": (lambda t: t + "\n* " + t, "* ", None),
    "chinese": (lambda t: t + "当然可以", "当", None),
}


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_shortcut_is_found_in_its_exact_bytes(name: str):
    plant, expected, family = PLANTS[name]
    sides = [(plant(a) if i % 8 == 0 else a, b) for i, (a, b) in enumerate(random_sides(800))]
    done = audit(pairs_of(sides))
    hits = [f for f in done.findings if expected in (f.feature, *f.members) or expected in f.feature]
    assert hits and hits[0].rejected <= 1 and hits[0].chosen >= 90
    assert family in (None, hits[0].family) or family in [f.family for f in done.findings]
    assert done.verdict == "block" or name in ("casing", "homoglyph", "bullet")
    assert set(hits[0].row_ids) <= {f"{i:05d}" for i in range(0, 800, 8)}


def test_no_finding_where_labels_are_drawn_by_lot():
    """Any finding at all in at most 5 % of runs; 60 runs with three or fewer are 97 % likely at that rate."""
    rng, alarms = np.random.default_rng(1), 0
    for seed in range(60):
        base = random_sides(150, seed)
        drawn = [sides if rng.random() < 0.5 else sides[::-1] for sides in base]
        alarms += bool(audit(pairs_of(drawn)).findings)
    assert alarms <= 6


def test_repeated_prompts_and_answers_raise_no_alarm():
    """Thirty pairs of each prompt share their answers: pair by pair they would look like evidence."""
    rng, alarms = np.random.default_rng(2), 0
    for seed in range(20):
        sides, prompts = [], []
        for p, (good, bad) in enumerate(random_sides(30, seed)):
            turned = rng.random() < 0.5
            sides += [(bad, good) if turned else (good, bad)] * 30
            prompts += [f"p{p}"] * 30
        alarms += bool(audit(pairs_of(sides, prompts)).findings)
    assert alarms <= 3


def planted(n: int = 300) -> pa.Table:
    sides = [(a + " indeed" if i % 3 else a, b) for i, (a, b) in enumerate(random_sides(n))]
    return pairs_of(sides)


def test_swapping_all_sides_negates_every_sign():
    there, back = audit(planted()), audit(swapped(planted()))
    signs = {f.feature: (f.z, f.z_length_adjusted, f.pull, f.log_odds) for f in there.findings}
    assert signs
    for f in back.findings:
        assert np.allclose((f.z, f.z_length_adjusted, f.pull, f.log_odds), [-v for v in signs[f.feature]], atol=1e-4)
    assert len(back.findings) == len(signs) and back.verdict == there.verdict


def test_the_order_of_rows_changes_no_byte():
    rows = planted()
    order = np.random.default_rng(3).permutation(rows.num_rows)
    assert json.dumps(audit(rows).as_dict()) == json.dumps(audit(rows.take(pa.array(order))).as_dict())


def test_every_row_twice_is_the_same_evidence():
    rows = planted()
    once, twice = (texts(r) for r in (rows, pa.concat_tables([rows, rows])))
    one, two = (incidence(t, least) for t, least in ((once, 8), (twice, 16)))
    tests = [run_tests(one, once), run_tests(two, twice)]
    assert np.allclose(np.sort(tests[0].z), np.sort(tests[1].z))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[st.text("ab é'!\n 你\u200d", min_size=1, max_size=14)] * 2), min_size=1, max_size=12))
def test_one_sided_words_are_those_a_plain_reading_finds(sides: list[tuple[str, str]]):
    given_texts = texts(pairs_of(sides))
    found = incidence(given_texts, 1)
    wanted: dict[str, int] = {}
    for a, b in sides:
        for word in plain_words(a) ^ plain_words(b):
            wanted[word] = wanted.get(word, 0) + 1
    words = np.flatnonzero(found.family == WORD)
    seen = {_surface(found, given_texts, int(f)): int(found.count[f]) for f in words}
    assert {w: n for w, n in seen.items() if re.fullmatch(r"[abé']+|你|!+", w)} == wanted


def _surface(found, given_texts, feature: int) -> str:
    _, side, start, end = found.example[feature].tolist()
    return given_texts.sides[side][start:end].tobytes().decode()


def plain_words(text: str) -> set[str]:
    """Words by a regular expression: letters with apostrophes between them, runs of "!", Chinese one by one."""
    return set(re.findall(r"[abé]+(?:'[abé]+)*|你|!+|'+", text))


def test_tarone_counts_only_what_could_be_significant():
    reach = np.array([2.0 ** (1 - n) for n in (3, 4, 5, 12, 12, 30)])
    assert tarone(reach, 0.05) == 3  # those of 12 and more reach .05 / 3; the others never could
    assert tarone(np.full(10, 1e-9), 0.05) == 10


def test_the_detection_limit_is_the_power_it_says():
    coverage = _smallest(0.9, tried=1000, pairs=2000, alpha=0.05, power=0.9)
    assert coverage is not None
    n, rng = round(coverage * 2000), np.random.default_rng(4)
    from scipy.stats import binomtest

    hits = [binomtest(int(rng.binomial(n, 0.9)), n).pvalue <= 0.05 / 1000 for _ in range(400)]
    assert abs(np.mean(hits) - 0.93) < 0.06  # a step above .90, the binomial being discrete


def test_the_ladder_tells_length_from_words():
    longer = audit(pairs_of([(a + " " + a, a) for a, _ in random_sides(300)]))
    rungs = {r.name: r.accuracy for r in longer.probe}
    assert rungs["length"] > 0.95 and longer.verdict == "block"
    nothing = audit(pairs_of(random_sides(400, 9)))
    assert all(abs(r.accuracy - 0.5) < 0.08 for r in nothing.probe) and nothing.verdict == "pass"


def test_what_length_explains_stays_info():
    sides = random_sides(600)
    done = audit(pairs_of([(a + " " + b, b) for a, b in sides]))
    assert done.findings and all(f.severity == "info" for f in done.findings if f.explained_by_length)
    assert any(f.explained_by_length for f in done.findings)


HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'\u202e|`"


def test_hostile_rows_stay_text(tmp_path: Path):
    rows = pairs_of([(HOSTILE + a, b) for a, b in random_sides(60)])
    done, given_texts = audit(rows), texts(rows)
    made = page(done, given_texts)
    assert "<script" not in made and "<img" not in made and "\u202e" not in made and "default-src 'none'" in made
    assert "bafalm" not in page(done, given_texts, redact=True)
    for path in write(done, given_texts, tmp_path):
        assert path.stat().st_size
    assert "<script" not in (tmp_path / "audit.md").read_text()


def test_the_gate_refuses_and_lets_pass():
    clean = pairs_of(random_sides(200, 5))
    assert ShortcutGate()(clean).rows.equals(clean)
    with pytest.raises(GateRefused, match=r"surface counts|indeed|words tell|three rules"):
        ShortcutGate()(planted())
    assert ShortcutGate(fail_on="never")(planted()).rows.num_rows == 300
    with pytest.raises(InputError, match="hihg"):
        ShortcutGate(fail_on="hihg")
    with pytest.raises(InputError, match="no pairs"):
        audit(clean.slice(0, 0))


def test_three_pairs_block_nothing():
    assert audit(pairs_of([(a + a, b) for a, b in random_sides(3)])).verdict == "pass"


def test_severities_order_what_is_refused():
    done: Audit = audit(planted())
    assert refuses(done, "block") and refuses(done, "warn") and not refuses(done, "never")


def test_the_command_writes_its_files_and_says_no_with_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    sides = [("I'm Athene, " + a, b) for a, b in random_sides(120)]
    pq.write_table(
        pa.table(
            {
                "prompt": [f"q{i}" for i in range(120)],
                "chosen": [s[0] for s in sides],
                "rejected": [s[1] for s in sides],
            }
        ),
        tmp_path / "pairs.parquet",
    )
    words = ["audit", str(tmp_path / "pairs.parquet"), "--out", str(tmp_path / "audit")]
    assert main(words) == 1 and main([*words, "--fail-on", "never"]) == 0
    out = capsys.readouterr().out
    assert "BLOCK" in out and "could have shown" in out
    found = json.loads((tmp_path / "audit/audit.json").read_text())
    assert found["verdict"] == "block" and found["findings"][0]["feature"].startswith("I'm Athene,")
    assert {"coverage", "purity", "pull", "bits", "z", "z_length_adjusted", "p_adjusted", "members", "row_ids"} <= set(
        found["findings"][0]
    )
    assert pq.read_table(tmp_path / "audit/flagged.parquet").num_rows == 120
    assert FAMILIES[WORD] == "word"


def test_balance_leaves_no_pull_keeps_most_pairs_and_does_nothing_twice():
    plant = {0: lambda a, b: (a + " indeed", b), 1: lambda a, b: (a, b + " indeed")}  # one-sided in 200: 150 and 50
    sides = [plant[int(i % 8 == 0)](a, b) if i % 2 == 0 else (a, b) for i, (a, b) in enumerate(random_sides(400))]
    made = repair(pairs_of(sides), "balance")
    assert made.pulls and all(abs(now) <= 0.01 < abs(was) for was, now in made.pulls.values())
    assert made.kept > 0.74  # 100 less a hundredth must go
    assert not [f for f in made.after.findings if f.severity != "info"]
    again = repair(made.outcome.rows, "balance")
    assert again.outcome.rows.equals(made.outcome.rows) and again.manifest.num_rows == 0
    assert (
        set(made.manifest["action"].to_pylist()) == {"dropped"} and made.manifest.num_rows == 400 - again.before.pairs
    )


def test_canonical_sides_differ_in_nothing_unseen():
    sides = [(a + "\n\u200b", b.replace(" ", "\u00a0", 1)) for a, b in random_sides(150)]
    made = repair(pairs_of(sides), "canonicalise")
    assert made.kept == 1 and made.before.verdict == "block" and made.after.verdict == "pass"
    assert set(made.manifest["action"].to_pylist()) == {"changed"}
    again = repair(made.outcome.rows, "canonicalise")
    assert again.outcome.rows.equals(made.outcome.rows)
    assert canonicalise(pairs_of([("same ", "same")])).reasons() == {"no_difference": 1}


def test_a_feature_without_counter_examples_costs_its_pairs():
    made = repair(
        pairs_of([("Sure! " + a, b) if i % 3 else (a, b) for i, (a, b) in enumerate(random_sides(300))]), "balance"
    )
    assert 0.32 < made.kept < 0.36


def test_repair_by_command_wants_the_audit_of_these_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pq.write_table(planted(), tmp_path / "pairs.parquet")
    main(["audit", str(tmp_path / "pairs.parquet"), "--out", str(tmp_path / "audit")])
    words = ["repair", str(tmp_path / "pairs.parquet"), "--out", str(tmp_path / "mended"), "--audit"]
    assert main([*words, str(tmp_path / "audit/audit.json")]) == 0
    assert "indeed" in capsys.readouterr().out
    assert 95 <= pq.read_table(tmp_path / "mended/pairs.parquet").num_rows <= 110
    assert main([*words, str(tmp_path / "nowhere.json")]) == 2
    pq.write_table(planted(30), tmp_path / "pairs.parquet")
    assert main([*words, str(tmp_path / "audit/audit.json")]) == 2
