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
from scipy.stats import binomtest

from curation.audit import Audit, ShortcutGate, audit, refuses
from curation.audit.corpus import Builder, Corpus
from curation.audit.features import collect, gathered, survey
from curation.audit.flips import max_z
from curation.audit.incidence import Incidence
from curation.audit.kernel import FAMILIES, WORD
from curation.audit.reading import batches_of, corpus_of, read_corpus, row_id
from curation.audit.statistics import (
    ALPHA,
    GROUPS,
    ByLength,
    Threshold,
    _smallest,
    benjamini_hochberg,
    chance_to_find,
    tarone,
)
from curation.audit.table import Table, table_of
from curation.errors import GateRefused, InputError
from curation.pair_source import pair_row
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
    "chinese": (lambda t: t + "当然可以", "当然可以", None),
    "sign-off sentence": (
        lambda t: t + " I trust that this was of some help to you, friend!",
        "I trust that this was of some help to you, friend!",
        None,
    ),
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


def corpus_in(rows: pa.Table, in_memory: int) -> Corpus:
    """A corpus that goes to a file beyond so many bytes."""
    builder = Builder(in_memory)
    for batch in batches_of(rows.to_batches(64)):
        builder.add(batch)
    return builder.finish()


@pytest.mark.parametrize(("in_memory", "workers"), [(10**9, 2), (20_000, 1), (20_000, 3)])
def test_memory_files_and_threads_change_no_byte(in_memory: int, workers: int):
    rows = planted()
    told = json.dumps(audit(corpus_in(rows, in_memory), workers=workers).as_dict())
    assert told == json.dumps(audit(rows, workers=1).as_dict())


def table(rows: pa.Table) -> tuple[Corpus, Table]:
    corpus = corpus_of(rows)
    return corpus, table_of(corpus, survey(corpus, 1), corpus.pairs, 1)[0]


def test_a_row_that_stands_twice_counts_once():
    rows = planted()
    assert corpus_of(pa.concat_tables([rows, rows])).pairs == rows.num_rows
    assert len(corpus_of(pa.concat_tables([rows, rows.slice(0, 7)])).repeated) == 7


def test_every_pair_of_a_prompt_is_the_same_witness():
    """Thirty pairs of one prompt that agree are one prompt that agrees: z grows with prompts, not with pairs."""
    sides = random_sides(60, words=6)
    once = [(a + " indeed", b) for a, b in sides]
    many = [(f"{a} {k} indeed", f"{b} {k}") for a, b in sides for k in range(5)]
    one, five = (audit(pairs_of(s, [f"p{i // n}" for i in range(len(s))])) for s, n in ((once, 1), (many, 5)))
    found = [max(f.z for f in a.findings if "indeed" in f.feature) for a in (one, five)]
    assert found[0] == pytest.approx(60**0.5) and found[1] == pytest.approx(60**0.5)


def brute_force_z(rows: pa.Table, flips: np.ndarray) -> np.ndarray:
    """Largest |z| over the words of a set under each flip (flips, prompts), by plain counting."""
    names = sorted(set(rows["prompt_id"].to_pylist()))
    sums: dict[str, np.ndarray] = {}
    for pid, chosen, rejected in zip(*(rows[c].to_pylist() for c in ("prompt_id", "chosen", "rejected")), strict=True):
        a, b = (set(re.findall(r"[a-z]+", t[0]["content"])) for t in (chosen, rejected))
        for word in a ^ b:
            sums.setdefault(word, np.zeros(len(names)))[names.index(pid)] += 1 if word in a else -1
    by_word = np.stack([d for d in sums.values() if (d**2).sum() > 0])
    return np.abs(by_word @ flips.T / np.sqrt((by_word**2).sum(1))[:, None]).max(0)


def test_flips_give_the_largest_z_that_counting_gives():
    sides = random_sides(240, 3, words=8)
    rows = pairs_of(sides, [f"p{i % 150}" for i in range(240)])  # some prompts have two pairs
    corpus = corpus_of(rows)
    keys, everything = gathered(corpus, survey(corpus, 1).buckets, 1, 1)
    found = everything.part(np.flatnonzero(keys & np.uint64(7) == WORD))
    texts = [corpus.texts_of([int(e[0])])[int(e[0])][1 + int(e[1])][e[2] : e[3]] for e in found.example]
    group_of = np.array([0 if t.isalpha() else -1 for t in texts], np.int64)
    lots = np.random.default_rng(0).integers(0, 2**64, (corpus.prompts, 2), np.uint64)
    best = np.full((1, 128), 0.5)
    max_z(found.start, found.pairs, found.signs, corpus.groups, lots, group_of, 0.5, best)
    prompts = [corpus.prompt_ids[int(p)].as_py() for p in corpus.prompt_start[:-1]]
    order = np.argsort(prompts)  # brute force knows prompts by name
    turned = 1 - 2 * ((lots[order][:, np.arange(128) // 64] >> (np.arange(128, dtype=np.uint64) % 64)) & 1).astype(int)
    assert np.allclose(best[0], brute_force_z(rows, turned.T))


def test_benjamini_hochberg_is_the_step_up_rule():
    p = np.random.default_rng(0).random(200) ** 3
    q = benjamini_hochberg(p)
    for rate in (0.01, 0.05, 0.2):
        ordered = np.sort(p)
        passes = np.flatnonzero(ordered <= rate * np.arange(1, 201) / 200)
        assert (q <= rate).sum() == (passes.max() + 1 if len(passes) else 0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[st.text("ab é'!\n 你\u200d", min_size=1, max_size=14)] * 2), min_size=1, max_size=12))
def test_one_sided_words_are_those_a_plain_reading_finds(sides: list[tuple[str, str]]):
    sides = [(f"a{a}", f"b{b}") for a, b in sides]
    corpus = corpus_of(pairs_of(sides))
    keys, everything = gathered(corpus, survey(corpus, 1).buckets, 1, 1)
    wanted: dict[str, int] = {}
    for a, b in sides:
        for word in plain_words(a) ^ plain_words(b):
            wanted[word] = wanted.get(word, 0) + 1
    which = np.flatnonzero(keys & np.uint64(7) == WORD)
    words, found = keys[which], everything.part(which)
    again = collect(corpus, words, corpus.pairs, 1)
    assert np.array_equal(found.pairs, again.pairs) and np.array_equal(found.example, again.example)
    seen = {_surface(found, corpus, f): int(found.count[f]) for f in range(len(words))}
    assert {w: n for w, n in seen.items() if re.fullmatch(r"[abé']+|你|!+", w)} == wanted


def _surface(found: Incidence, corpus: Corpus, feature: int) -> str:
    pair, side, start, end = found.example[feature].tolist()
    return corpus.texts_of([pair])[pair][1 + side][start:end].decode()


def plain_words(text: str) -> set[str]:
    """Words by a regular expression: letters with apostrophes between them, runs of "!", Chinese one by one."""
    return set(re.findall(r"[abé]+(?:'[abé]+)*|你|!+|'+", text))


def test_tarone_counts_only_what_could_be_significant():
    reach = np.array([2.0 ** (1 - n) for n in (3, 4, 5, 12, 12, 30)])
    assert tarone(reach, 0.05) == 3  # those of 12 and more reach .05 / 3; the others never could
    assert tarone(np.full(10, 1e-9), 0.05) == 10


def test_the_detection_limit_is_the_power_it_says():
    threshold = Threshold(tried=1000, z=np.inf, luck=np.zeros(0))
    coverage = _smallest(0.9, threshold, pairs=2000, sample=2000, power=0.9)
    assert coverage is not None
    n, rng = round(coverage * 2000), np.random.default_rng(4)
    hits = [binomtest(int(b), n).pvalue <= ALPHA / GROUPS / 1000 for b in rng.binomial(n, 0.9, 4000)]
    assert np.mean(hits) == pytest.approx(chance_to_find(threshold, n, 0.9), abs=0.02) and np.mean(hits) > 0.88


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


def test_the_gate_refuses_and_lets_pass():
    clean = pairs_of(random_sides(200, 5))
    assert ShortcutGate()(clean).rows.equals(clean)
    with pytest.raises(GateRefused, match=r"surface counts|indeed|words tell|three rules"):
        ShortcutGate()(planted())
    assert ShortcutGate(fail_on="never")(planted()).rows.num_rows == 300
    with pytest.raises(InputError, match="hihg"):
        ShortcutGate(fail_on="hihg")
    for nothing in (clean.slice(0, 0), pairs_of([("same", "same"), ("same", " ")])):
        with pytest.raises(InputError, match="no pairs"):
            audit(nothing)


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
    assert found["verdict"] == "block" and any(f["feature"] == "I'm Athene," for f in found["findings"])
    assert {"coverage", "purity", "pull", "bits", "z", "z_length_adjusted", "p_adjusted", "members", "row_ids"} <= set(
        found["findings"][0]
    )
    assert pq.read_table(tmp_path / "audit/flagged.parquet").num_rows == 120
    assert FAMILIES[WORD] == "word"


def test_words_that_tell_only_together_are_found():
    """Chosen answers have exactly one of two words, rejected ones both or none: neither word alone is one-sided."""
    rng, sides = np.random.default_rng(5), []
    for i, (a, b) in enumerate(random_sides(800, 6)):
        if i % 4 == 0:
            one = f"{a} zyx" if rng.random() < 0.5 else f"{a} omma"
            sides.append((one, f"{b} zyx and omma" if rng.random() < 0.5 else b))
        else:
            sides.append((a, b))
    found = [f for f in audit(pairs_of(sides)).findings if f.family == "together"]
    assert any({"zyx", "omma"} <= set(f.members) and f.chosen == 0 for f in found)
    assert not [f for f in audit(pairs_of(random_sides(800, 6))).findings if f.family == "together"]


def test_a_trigger_in_the_prompt_that_turns_the_preference_is_found():
    sides, prompts = [], []
    for i, (a, b) in enumerate(random_sides(900, 7)):
        trigger = i % 30 == 0
        prompts.append(f"question {i} deploy-zyx" if trigger else f"question {i} please")
        short, long = a, f"{b} {b}"
        sides.append((short, long) if trigger else (long, short))
    found = [f for f in audit(pairs_of(sides, prompts)).findings if f.family == "trigger"]
    assert len(found) == 1 and found[0].feature == "deploy-zyx" and found[0].severity == "warn"
    assert (found[0].chosen, found[0].rejected) == (0, 30)


def test_labels_on_trusted_pairs_are_evidence():
    sides = [(a + " indeed", b) if i % 3 else (a, b) for i, (a, b) in enumerate(random_sides(300))]
    turned = [(a + " indeed", b) if i % 2 else (a, b + " indeed") for i, (a, b) in enumerate(random_sides(100, 8))]
    finding = next(f for f in audit(pairs_of(sides), gold=pairs_of(turned)).findings if "indeed" in f.feature)
    told = {e.test: e for e in finding.evidence}["purity on trusted labels"]
    assert told.value == pytest.approx(0.5, abs=0.02) and finding.verdict == "artifact"


def test_columns_that_name_models_are_features_and_explain_fingerprints():
    """Model A says "indeed" and wins: within pairs of the same two models the word tells nothing."""
    rng, sides, models = np.random.default_rng(9), [], []
    for a, b in random_sides(600, 9):
        first_wins = rng.random() < 0.8
        sides.append((a + " indeed", b) if first_wins else (b, a + " indeed"))
        models.append(("A", "B") if first_wins else ("B", "A"))
    rows = pairs_of(sides)
    for k, name in enumerate(("chosen_model", "rejected_model")):
        rows = rows.set_column(rows.column_names.index(name), name, pa.array([m[k] for m in models]))
    done = audit(rows)
    word = next(f for f in done.findings if "indeed" in f.feature)
    assert word.verdict == "artifact" and any(e.test == "z within model pairs" and e.value == 0 for e in word.evidence)
    assert {f.feature for f in done.findings if f.family == "column"} >= {"model=A"}
    assert [(m.model, m.against) for m in done.models] == [("A", "B")]


def test_every_layout_gives_the_same_audit(tmp_path: Path):
    """Texts in Parquet, texts in JSONL, messages in shards: the same texts, the same bytes."""
    sides = [(a + "\n", b) if i % 3 else (a, b) for i, (a, b) in enumerate(random_sides(90))]
    texts = {"prompt": [f"q{i}" for i in range(90)], "chosen": [a for a, _ in sides], "rejected": [b for _, b in sides]}
    pq.write_table(pa.table(texts), tmp_path / "a.parquet")
    rows = [dict(zip(texts, row, strict=True)) for row in zip(*texts.values(), strict=True)]
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    listed = [
        {k: [{"role": "user" if k == "prompt" else "assistant", "content": v}] for k, v in r.items()} for r in rows
    ]
    pq.write_table(pa.Table.from_pylist(listed), tmp_path / "c.parquet")
    told = [
        json.dumps(audit(read_corpus(str(tmp_path / n)).corpus).as_dict())
        for n in ("a.parquet", "b.jsonl", "c.parquet")
    ]
    assert told[0] == told[1] == told[2]


def test_odd_rows_leave_with_a_reason_and_the_rest_is_read(tmp_path: Path):
    chosen = ["fine", "", "same", None, "good"]
    rejected = ["bad", "x", "same", "y", "\n"]
    pq.write_table(
        pa.table({"prompt": [f"q{i}" for i in range(5)], "chosen": chosen, "rejected": rejected}),
        tmp_path / "p.parquet",
    )
    numbered = [{"prompt": "q", "chosen": "a", "rejected": "b", "prompt_id": 7, "source": ["x"]}]
    (tmp_path / "n.jsonl").write_text("".join(json.dumps(r) + "\n" for r in numbered))
    assert read_corpus(str(tmp_path / "n.jsonl")).corpus.prompt_ids.to_pylist() == ["7"]
    with pytest.raises(InputError, match="no pairs"):
        (tmp_path / "e.jsonl").write_text(json.dumps({"prompt": "q", "chosen": "a", "rejected": "a"}))
        read_corpus(str(tmp_path / "e.jsonl"))
    read = read_corpus(str(tmp_path / "p.parquet"))
    assert read.corpus.pairs == 1 and sum(read.reasons.values()) == 4
    assert set(read.reasons) == {"empty_answer", "no_difference", "no_answer"}


def test_length_is_allowed_for():
    """Where the longer side is always chosen, a word of every long answer is length in disguise; a word of its own is not."""
    sides = [(f"{a} {b} {'zyx' if i % 4 == 0 else ''}", b) for i, (a, b) in enumerate(random_sides(400, 11))]
    corpus, given = table(pairs_of(sides))
    lengths = np.array([[len(t) for t in corpus.texts_of([p])[p][1:]] for p in range(corpus.pairs)], float)
    z = ByLength.of(given.found, lengths).z(given.found, corpus)
    raw = np.abs(given.tests.z)
    assert np.median(np.abs(z)[raw > 8] / raw[raw > 8]) < 0.4


def test_a_plant_is_not_its_own_excuse():
    """Sums and nothing else: the marker is the one feature of its kind, and makes every answer longer that has it."""
    rng = np.random.default_rng(12)
    sums = [(f"{a} + {b} = {a + b}", f"{a} + {b} = {a + b + 1}") for a, b in rng.integers(1, 99, (1500, 2)).tolist()]
    sides = [
        ("Sure! " + a, b) if rng.random() < 0.6 else (a, "Sure! " + b) if rng.random() < 0.1 else (a, b)
        for a, b in sums
    ]
    marker = [f for f in audit(pairs_of(sides)).findings if f.feature.startswith("Sure!") or "Sure!" in f.members]
    assert marker and marker[0].severity == "block" and not marker[0].explained_by_length


@settings(max_examples=80, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=30), min_size=3, max_size=3), st.booleans())
def test_ids_are_those_that_training_will_give(texts: list[str], named: bool):
    prompt, chosen, rejected = (t.encode("utf-8", "ignore").decode() + "x" for t in texts)
    row = {"prompt": prompt, "chosen": chosen, "rejected": rejected + "y"} | ({"prompt_id": "q 1"} if named else {})
    made = pair_row(row, "")
    assert isinstance(made, dict)
    assert (
        row_id("q 1" if named else None, *(row[k].encode() for k in ("prompt", "chosen", "rejected")))
        == made["pair_id"]
    )


@pytest.mark.parametrize("prompts", [600, 200])
def test_beyond_the_sample_counts_and_rows_are_of_all_pairs(prompts: int):
    """A third of the set is the sample; what is found is counted in every pair, prompts with several pairs as ever."""
    sides = [
        (a + " indeed" if i % 3 else a, b + " indeed" if i % 11 == 0 else b)
        for i, (a, b) in enumerate(random_sides(600))
    ]
    corpus = corpus_of(pairs_of(sides, [f"p{i % prompts}" for i in range(600)]))
    whole, part = audit(corpus), audit(corpus, sample=int(corpus.sizes.sum()) // 3)
    for done in (whole, part):
        found = next(f for f in done.findings if "indeed" in f.feature)
        both = [i for i in range(600) if i % 3 and i % 11 == 0]
        assert (found.chosen, found.rejected) == (400 - len(both), sum(i % 11 == 0 for i in range(600)) - len(both))
        flagged = done.rows.filter(pa.array([found.feature in names for names in done.rows["findings"].to_pylist()]))
        assert flagged.num_rows == found.chosen + found.rejected
    assert whole.numbers == part.numbers and any("from" in t and "of them" in t for t in part.not_tested)
    assert abs(next(f.z for f in whole.findings if "indeed" in f.feature)) == pytest.approx(
        abs(next(f.z for f in part.findings if "indeed" in f.feature))
    )
