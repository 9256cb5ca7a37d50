"""What models add to the audit: token ids as the loss sees them, edits put before a scorer, embeddings for the probe."""

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curation.audit import audit
from curation.audit.corpus import Corpus
from curation.audit.counterfactual import Counterfactual, counterfactuals, edits_of, pattern_of, with_counterfactuals
from curation.audit.embed import embeddings, projected
from curation.audit.evidence import ARTIFACT, Evidence
from curation.audit.findings import Finding
from curation.audit.incidence import Signed
from curation.audit.reading import corpus_of, prompt_messages, prompt_text
from curation.audit.scorers import ImplicitReward, RewardModelScorer, completion_logps, one_by_one_where_refused
from curation.audit.tokens import Seen, _read, load_tokenizer, marks_of, token_features
from curation.chat import encode_chats
from curation.errors import InputError
from curation.reward_model import RewardModelScore
from curation.schema import DPO, conform
from pipelines.audit_models import add_model_flags, ask_scorer, check_model_flags, from_models
from tests.fakes import random_model, scored_rows
from training.models import load_reward_model
from training.pairs import encode_pairs
from training.reference import ReferenceLogprobs

WORDS = [
    "amber",
    "birch",
    "cedar",
    "delta",
    "ember",
    "fjord",
    "grove",
    "heron",
    "inlet",
    "joker",
    "karma",
    "lemon",
    "mango",
    "nylon",
    "ocean",
]
TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def rows_of(sides: Sequence[tuple[str, str]], prompts: Sequence[str] | None = None) -> pa.Table:
    """Rows of schema.DPO."""
    names = prompts or [f"question {i}" for i in range(len(sides))]
    turns = [[[{"role": "assistant", "content": text}] for text in column] for column in zip(*sides, strict=True)]
    columns = {
        "pair_id": [f"{i:04d}" for i in range(len(sides))], "prompt": [prompt_messages(n) for n in names],
        "chosen": turns[0], "rejected": turns[1],
    }  # fmt: skip
    return conform(pa.table(columns, schema=pa.schema([DPO.field(n) for n in columns])), DPO)


def random_sides(n: int, words: int = 6, seed: int = 0) -> list[tuple[str, str]]:
    """Answers of like lengths that differ at random."""
    rng = np.random.default_rng(seed)
    made = [[" ".join(rng.choice(WORDS, words)) + "." for _ in range(2)] for _ in range(n)]
    return [(a, b if a != b else b + " " + WORDS[0]) for a, b in made]


def planted(n: int, plant: Callable[[str], str], every: int = 3) -> pa.Table:
    """Every `every`-th chosen answer with the plant."""
    return rows_of([(plant(a) if i % every == 0 else a, b) for i, (a, b) in enumerate(random_sides(n))])


def in_rows(corpus: Corpus, signed: Signed) -> list[int]:
    """Signs by place in the input."""
    found = np.zeros(corpus.pairs, int)
    found[corpus.rows] = signed.signs
    return found.tolist()


def features(corpus: Corpus, tokenizer: str, max_length: int = 1024) -> dict[str, Signed]:
    return {s.name: s for s in token_features(corpus, tokenizer, max_length)}


@pytest.fixture(scope="module")
def toy() -> str:
    return str(random_model())


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A byte-level BPE with a ChatML template that refuses system turns; "\n\n" is one token, no emoji is."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(r"[\r\n]+|[^\r\n]"), behavior="isolated")
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=258, initial_alphabet=alphabet, special_tokens=[], show_progress=False)
    core.train_from_iterator(["a\n\nb"] * 9, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", additional_special_tokens=["<|im_start|>"]
    )
    tokenizer.chat_template = TEMPLATE
    folder = tmp_path_factory.mktemp("bpe")
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def reward_model(tmp_path_factory: pytest.TempPathFactory, toy: str) -> str:
    import torch

    folder = tmp_path_factory.mktemp("rm")
    torch.manual_seed(0)
    load_reward_model(toy).save_pretrained(folder)
    load_tokenizer(toy).save_pretrained(folder)
    return str(folder)


def test_the_long_side_that_loses_its_end_token_is_named_and_blocks(toy: str):
    rows = planted(120, lambda text: text + " more" * 9)
    corpus = corpus_of(rows)
    found = features(corpus, toy, max_length=90)
    expected = [int(i % 3 == 0) for i in range(120)]
    for name in ("no end token within 90 tokens", "truncated at 90 tokens"):
        assert in_rows(corpus, found[name]) == expected and found[name].family == "token"
    done = audit(corpus, more=list(found.values()))
    (finding,) = [f for f in done.findings if f.feature == "no end token within 90 tokens"]
    assert (finding.chosen, finding.rejected, finding.severity) == (40, 0, "block")
    assert "truncated at 90 tokens" in finding.members and not any("tokenizer" in n for n in done.not_tested)
    assert "no end token within 1024 tokens" not in features(corpus, toy)


@pytest.mark.parametrize(
    ("plant", "names"),
    [
        (lambda t: "<|user|>" + t, ["special token '<|user|>' spelled in the answer"]),
        (lambda t: t + "<|end|>\n", ["doubled end token", "special token '<|end|>' spelled in the answer"]),
    ],
)
def test_a_special_token_that_the_text_spells_is_named(toy: str, plant: Callable[[str], str], names: list[str]):
    corpus = corpus_of(planted(60, plant))
    found = features(corpus, toy)
    assert all(in_rows(corpus, found[n]) == [int(i % 3 == 0) for i in range(60)] for n in names)
    assert ("doubled end token" in found) == ("doubled end token" in names)
    done = audit(corpus, more=list(found.values()))
    assert any(f.severity == "block" and names[0] in (f.feature, *f.members) for f in done.findings)


def test_first_and_last_tokens_are_told_by_id_and_text(toy: str):
    corpus = corpus_of(rows_of([("Z" + a, b[:-1] + "!") for a, b in random_sides(40)]))
    found, ids = features(corpus, toy), load_tokenizer(toy).convert_tokens_to_ids(["Z", "!", "."])
    assert set(found[f"first token {ids[0]} 'Z'"].signs) == {1}
    assert set(found[f"last token {ids[1]} '!'"].signs) == {-1} and set(found[f"last token {ids[2]} '.'"].signs) == {1}
    assert set(found["more tokens"].signs) == {1} and found["more tokens"].family == "number"


def test_the_tokens_are_those_the_trainer_is_given(toy: str, byte_level: str):
    sides = [("\nHello there", "Hello"), ("<|im_end|> no", "yes"), ("ends \U0001f31f", "ends \n")]
    rows = rows_of(sides, ["a", "b", "user: hi\n\nassistant: hello\n\nuser: again"])
    corpus = corpus_of(rows)
    (chunk,) = corpus.chunks()
    place = {row: pair for pair, row in enumerate(corpus.rows.tolist())}
    for folder in (toy, byte_level):
        assert not token_features(corpus, folder, 1024)  # three pairs are too few
        tokenizer = load_tokenizer(folder)
        seen, marks = Seen.empty(3), marks_of(tokenizer)
        _read(tokenizer, marks, chunk, 0, 1024, seen)
        examples, _ = encode_pairs(tokenizer, rows, 1024)
        for i, example in enumerate(examples):
            for side, one in enumerate((example.chosen, example.rejected)):
                taught, at = one.ids[one.taught].tolist(), (place[i], side)
                end = len(marks.tail)
                assert (seen.first[at], seen.tokens[at], seen.last[at]) == (taught[0], len(taught), taught[-end - 1])
                assert tuple(taught[-end:]) == marks.tail and len(examples) == 3


def test_pieces_of_characters_unknown_tokens_and_merges_with_the_prompt(toy: str, byte_level: str):
    corpus = corpus_of(planted(60, lambda text: "\n" + text + " \U0001f31f"))
    expected = [int(i % 3 == 0) for i in range(60)]
    found = features(corpus, byte_level)
    assert in_rows(corpus, found["prompt's last token merges with the answer's first"]) == expected
    assert in_rows(corpus, found["tokens that are parts of a character"]) == expected and "unknown tokens" not in found
    found = features(corpus, toy)
    assert in_rows(corpus, found["unknown tokens"]) == expected
    assert not any("merges" in name or "parts" in name for name in found)


def test_a_pair_that_the_template_refuses_has_no_features(byte_level: str):
    sides = [("Z" + a, b) for a, b in random_sides(40)]
    corpus = corpus_of(
        rows_of(sides, [("system: be brief\n\nuser: " if i % 4 == 0 else "") + f"hi {i}" for i in range(40)])
    )
    name = next(n for n in features(corpus, byte_level) if n.startswith("first token") and n.endswith("'Z'"))
    assert in_rows(corpus, features(corpus, byte_level)[name]) == [int(i % 4 != 0) for i in range(40)]


def test_a_tokenizer_that_cannot_be_used_is_refused(tmp_path: Path, toy: str):
    corpus = corpus_of(planted(9, str.upper))
    with pytest.raises(InputError, match="with a tokenizer"):
        token_features(corpus, str(tmp_path / "none"), 64)
    plain = load_tokenizer(toy)
    plain.chat_template = None
    plain.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="no chat template"):
        token_features(corpus, str(tmp_path), 64)


@pytest.mark.parametrize("roles", [["user"], ["system", "user"], ["user", "assistant", "user"]])
def test_a_prompt_survives_being_one_text(roles: list[str]):
    messages = [{"role": role, "content": f"line\n\n{role}s say: {i}"} for i, role in enumerate(roles)]
    assert prompt_messages(prompt_text(messages)) == messages


@dataclass
class Likes:
    """Scores by a function of the answer; NaN for what it refuses."""

    of: Callable[[str], float]
    refuses: str = "\0"

    def score(self, prompts: Sequence[Sequence[dict[str, str]]], completions: Sequence[str]) -> list[float]:
        assert len(prompts) == len(completions) and all(p[-1]["role"] == "user" for p in prompts)
        return [math.nan if self.refuses in text else self.of(text) for text in completions]


@pytest.fixture(scope="module")
def shortcut() -> tuple[Corpus, tuple[Finding, ...]]:
    """A word that two thirds of 150 chosen answers hold, and what the audit finds."""
    sides = [(a.replace(" ", " zyxom ", 1) if i % 3 else a, b) for i, (a, b) in enumerate(random_sides(150, 20))]
    corpus = corpus_of(rows_of(sides))
    return corpus, audit(corpus).findings


def test_a_scorer_that_likes_the_word_is_caught(shortcut: tuple[Corpus, tuple[Finding, ...]]):
    corpus, findings = shortcut
    results = counterfactuals(findings, corpus, Likes(lambda text: 2.0 * ("zyxom" in text)))
    (found,) = [r for r in results if r.feature == "zyxom"]
    assert found == Counterfactual("zyxom", 64, 2.0, (2.0, 2.0), 0.0)
    after = {f.feature: f for f in with_counterfactuals(findings, results)}["zyxom"]
    (line,) = [e for e in after.evidence if e.test == "counterfactual edit"]
    assert line.value == 2.0 and line.speaks_for == ARTIFACT and "likes it" in line.says
    before = {f.feature: f for f in findings}["zyxom"]
    assert after.evidence[:-1] == before.evidence
    assert (
        with_counterfactuals(with_counterfactuals(findings, results), results)[0]
        == with_counterfactuals(findings, results)[0]
    )


def test_a_scorer_of_length_alone_makes_no_difference(shortcut: tuple[Corpus, tuple[Finding, ...]]):
    corpus, findings = shortcut
    for found in counterfactuals(findings, corpus, Likes(lambda text: 0.1 * len(text))):
        assert found.pairs >= 8 and found.effect == pytest.approx(0, abs=1e-9)
        assert found.control_effect > 0.4 and found.interval == pytest.approx((0, 0), abs=1e-9)
        line = with_counterfactuals(findings, [found])[0].evidence[-1]
        assert line.speaks_for == "" or line.test != "counterfactual edit"


def test_what_the_scorer_dislikes_speaks_for_nothing(shortcut: tuple[Corpus, tuple[Finding, ...]]):
    corpus, findings = shortcut
    results = counterfactuals(findings, corpus, Likes(lambda text: -1.0 * ("zyxom" in text)))
    lines = [e for f in with_counterfactuals(findings, results) for e in f.evidence if e.test == "counterfactual edit"]
    assert lines and all(e.speaks_for == "" for e in lines) and any("dislikes" in e.says for e in lines)


def test_what_could_not_be_judged_is_left_out_and_never_nought(shortcut: tuple[Corpus, tuple[Finding, ...]]):
    corpus, findings = shortcut
    nothing = counterfactuals(findings, corpus, Likes(lambda text: math.nan))
    assert nothing and all(r.pairs == 0 and math.isnan(r.effect) and math.isnan(r.interval[0]) for r in nothing)
    assert with_counterfactuals(findings, nothing) == tuple(findings)
    some = counterfactuals(findings, corpus, Likes(lambda text: 1.0 * ("zyxom" in text), refuses="amber"))
    (found,) = [r for r in some if r.feature == "zyxom"]
    assert 0 < found.pairs < 64 and (found.effect == 1.0 or found.pairs < 8)


def of(feature: str, family: str) -> Finding:
    numbers = dict.fromkeys(
        ["coverage", "purity", "pull", "log_odds", "bits", "z", "z_length_adjusted", "p", "p_adjusted", "q", "score"],
        0.5,
    )
    pairs = dict.fromkeys(["purity_interval", "pull_interval", "log_odds_interval", "bits_interval"], (0.0, 1.0))
    return Finding(feature, family, 9, 0, severity="high", explained_by_length=False, edit="delete", members=(),
                   **numbers, **pairs)  # type: ignore[arg-type]  # fmt: skip


@pytest.mark.parametrize(
    ("feature", "family", "text", "without"),
    [
        ("art", "word", "An Art of parts, isn't it so fine", "An  of parts, isn't it so fine"),
        ("Art", "cased", "An Art, no art at all today", "An , no art at all today"),
        ("Sure!", "opener", "\nSure! Here it is, Sure! So now", "\n Here it is, Sure! So now"),
        ("Bye.", "closer", "Bye. You go there now then. Bye.\n", "Bye. You go there now then. \n"),
        ("\n", "whitespace", "One\ntwo\nthree four\n", "One\ntwo\nthree four"),
        ("* ", "format", "* one two\n* two * three and some more", "one two\ntwo * three and some more"),
        ("\u200b", "character", "Ze\u200bro width", "Zero width"),
        ("当", "word", "必当如此 and this goes on", "必如此 and this goes on"),
    ],
)
def test_an_edit_takes_out_the_text_and_its_control_as_much_elsewhere(
    feature: str, family: str, text: str, without: str
):
    made = edits_of(text, pattern_of(of(feature, family)), "lot")
    assert made is not None and made[0] == without
    assert len(made[1]) == len(made[0]) and made[1] != made[0] and pattern_of(of(feature, family)).search(made[1])
    assert made == edits_of(text, pattern_of(of(feature, family)), "lot")


def test_a_control_edit_cuts_whole_words_where_the_finding_is_one():
    text = "here comes amber and then birch takes delta for ember"
    cuts = {edits_of(text, pattern_of(of("amber", "word")), str(lot))[1] for lot in range(40)}
    assert cuts == {text.replace(word, "") for word in ("comes", "birch", "takes", "delta", "ember")}
    assert edits_of("amber", pattern_of(of("amber", "word")), "") is None
    assert edits_of("an amber", pattern_of(of("amber", "word")), "") is None
    assert edits_of("Oh! Oh! And so it goes on", pattern_of(of("Oh!", "opener")), "") is None  # it would still be one


def test_a_reward_model_and_a_policy_score_as_elsewhere_in_the_house(reward_model: str, tmp_path: Path, toy: str):
    sides = random_sides(12)
    prompts = [[{"role": "user", "content": f"question {i}"}] for i in range(12)]
    rows = scored_rows([(f"question {i}", 0.0, "stop", a) for i, (a, _) in enumerate(sides)])
    chosen = [a for a, _ in sides]
    expected = [v.score for v in RewardModelScore(reward_model)(rows)]
    assert RewardModelScorer(reward_model).score(prompts, chosen) == pytest.approx(expected, abs=1e-5)
    other = str(random_model(layers=1))
    known = [ReferenceLogprobs(m)(rows_of(sides)) for m in (toy, other)]
    for column, answers in (("ref_chosen_logps", chosen), ("ref_rejected_logps", [b for _, b in sides])):
        policy, reference = (np.array(k[column].to_pylist()) for k in known)
        found = ImplicitReward(toy, other, beta=0.3).score(prompts, answers)
        assert found == pytest.approx((0.3 * (policy - reference)).tolist(), abs=2e-4)


def test_a_scorer_has_no_score_for_what_it_cannot_read(reward_model: str, toy: str, byte_level: str):
    prompts = [[{"role": "user", "content": "hi"}]] * 2
    for scorer in (RewardModelScorer(reward_model, max_length=40), ImplicitReward(toy, toy, max_length=40)):
        short, long = scorer.score(prompts, ["short", "long " * 20])
        assert math.isfinite(short) and math.isnan(long) and scorer.score([], []) == []
    tokenizer = load_tokenizer(byte_level)

    def judge(asked: Sequence[Sequence[dict[str, str]]], answers: Sequence[str]) -> list[float]:
        return [float(len(ids)) for ids in encode_chats(tokenizer, asked)]

    system = [{"role": "system", "content": "x"}]
    found = one_by_one_where_refused(judge, [system, prompts[0], prompts[0]], ["a", "b", "c"])
    assert math.isnan(found[0]) and found[1] == found[2] > 0
    tokenizer.chat_template = None
    with pytest.raises(InputError, match="no chat template"):
        one_by_one_where_refused(
            lambda asked, answers: completion_logps(tokenizer, None, asked, answers, 99), prompts, ["a", "b"]
        )


def test_embeddings_make_a_rung_and_are_the_same_every_time(toy: str):
    rows = rows_of([(a + " zebra" * 3, b) for a, b in random_sides(60)])
    corpus = corpus_of(rows)
    found = embeddings(corpus, toy, dimensions=8)
    assert found.shape == (60, 8) and found.dtype == np.float32 and np.array_equal(found, embeddings(corpus, toy, 8))
    assert embeddings(corpus, toy).shape == (60, 64)
    rungs = [r.name for r in audit(corpus, embeddings=found).probe]
    assert rungs == ["length", "surface", "format", "ngrams", "embeddings", "prompt"]
    flipped = corpus_of(rows.set_column(3, "chosen", rows["rejected"]).set_column(4, "rejected", rows["chosen"]))
    by_row = [np.stack([d for _, d in sorted(zip(c.rows.tolist(), f, strict=True))])
              for c, f in ((corpus, embeddings(corpus, toy)), (flipped, embeddings(flipped, toy)))]  # fmt: skip
    assert np.allclose(by_row[0], -by_row[1], atol=1e-5)


def test_the_projection_keeps_the_largest_directions():
    rng = np.random.default_rng(0)
    values = (rng.standard_normal((300, 90)) * np.geomspace(1, 1e-3, 90)).astype(np.float32)
    found = projected(values, 6, 0)
    exact = np.linalg.svd(values, compute_uv=False)[:6]
    assert np.allclose(np.linalg.norm(found, axis=0), exact, rtol=0.02)
    signs = np.sign(rng.standard_normal((300, 1))).astype(np.float32)
    assert np.allclose(projected(values * signs, 6, 0), found * signs, atol=1e-3)


def test_the_flags_of_models(toy: str, reward_model: str):
    parser = argparse.ArgumentParser()
    add_model_flags(parser)

    def parse(line: str) -> argparse.Namespace:
        given = parser.parse_args(line.split())
        check_model_flags(given)
        return given

    for line in ("--policy a", "--reference a", "--policy a --reference b --reward-model c", "--max-length 0"):
        with pytest.raises(InputError):
            parse(line)
    corpus = corpus_of(planted(60, lambda text: text.replace(text[:5], "zyxom"), every=2))
    assert from_models(parse(""), corpus) == {}
    made = from_models(parse(f"--tokenizer {toy} --embed {toy} --max-length 64"), corpus)
    assert set(made) == {"more", "embeddings"} and {s.family for s in made["more"]} == {"token"}
    done = audit(corpus)
    assert ask_scorer(parse(""), corpus, done) is done
    for line in (f"--reward-model {reward_model}", f"--policy {toy} --reference {random_model(layers=1)}"):
        asked = ask_scorer(parse(line), corpus, done)
        lines = [e for f in asked.findings for e in f.evidence if e.test == "counterfactual edit"]
        assert lines and all(isinstance(e, Evidence) and math.isfinite(e.value) for e in lines)
