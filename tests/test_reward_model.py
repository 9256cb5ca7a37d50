"""A trained reward model as a reward: the trainer's own scores, whatever the batch; refusals and languages beside it."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from curation.errors import EngineError
from curation.languages import LanguageMatch
from curation.refusals import RefusalMatch, refuses
from curation.reward_model import RewardModelScore, batches
from tests.fakes import random_model, scored_rows
from training.models import load_reward_model, load_tokenizer

ANSWERS = [(f"Question {i}?", 0.0, "stop", "answer " * (i % 5 + 1)) for i in range(9)]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("rm")
    torch.manual_seed(0)
    load_reward_model(str(random_model())).save_pretrained(folder)
    load_tokenizer(str(random_model())).save_pretrained(folder)
    return str(folder)


def test_scores_do_not_depend_on_the_batch_and_are_the_models_own(model: str):
    rows = scored_rows(ANSWERS)
    found = [RewardModelScore(model, batch_tokens=n)(rows) for n in (1, 100, 10_000)]
    scores = np.array([[v.score for v in f] for f in found])
    assert scores.shape == (3, 9) and np.allclose(scores, scores[0], atol=1e-5) and np.ptp(scores[0]) > 1e-3
    tokenizer, loaded = load_tokenizer(model), load_reward_model(model)
    row = rows.to_pylist()[3]
    ids = tokenizer.apply_chat_template(
        [*row["prompt"], {"role": "assistant", "content": row["completion"]}], return_dict=False
    )
    with torch.no_grad():
        hidden = loaded.model(torch.tensor([ids])).last_hidden_state[0, -1]
        assert loaded.score(hidden).item() == pytest.approx(found[0][3].score, abs=1e-5)


def test_what_is_too_long_has_no_verdict(model: str):
    verdicts = RewardModelScore(model, max_length=30)(scored_rows(ANSWERS))
    assert {v.verdict.split(":")[0] for v in verdicts} == {"scored", "too_long"}
    assert all((v.score != v.score) == v.verdict.startswith("too_long") for v in verdicts)


def test_a_model_that_is_no_reward_model_is_refused(tmp_path: Path):
    from transformers import LlamaConfig, LlamaForSequenceClassification

    small = {
        "vocab_size": 40,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    LlamaForSequenceClassification(LlamaConfig(**small, num_labels=3)).save_pretrained(tmp_path)
    with pytest.raises(EngineError, match="3 outputs"):
        RewardModelScore(str(tmp_path))(scored_rows(ANSWERS[:1]))


def test_batches_hold_their_budget():
    lengths = np.array([9, 7, 7, 3, 2, 1])
    cut = batches(np.arange(6), lengths, 14)
    assert [list(c) for c in cut] == [[0], [1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("I can't help with that.", True), ("I’m sorry, but I cannot assist.", True), ("As an AI, I am not able to do this.", True),
        ("Sorry to hear that! Here is how:", False), ("I'm sorry for your loss. Here is a poem.", False),
        ("To kill a Python process, use `kill`.", False), ("Sure. " + "x" * 300 + " I can't say more.", False), ("", False),
    ],
)  # fmt: skip
def test_a_refusal_is_told_by_its_opening(text: str, wanted: bool):
    assert refuses(text) == wanted


def test_refusing_is_right_where_the_truth_says_so():
    rows = scored_rows(
        [
            ("a", 0.0, "stop", "I can't."),
            ("b", 0.0, "stop", "Sure."),
            ("c", 0.0, "stop", "Sure."),
            ("d", 0.0, "stop", ""),
        ]
    )
    rows = rows.set_column(
        rows.column_names.index("ground_truth"), "ground_truth", pa.array(["refuse", "unsafe", "comply", None])
    )
    scores = [v.score for v in RefusalMatch()(rows)]
    assert scores[:3] == [1.0, 0.0, 1.0] and scores[3] != scores[3]


def test_an_answer_in_another_language_is_told():
    pytest.importorskip("py3langid")
    english, german = "The weather in the mountains is fine today.", "Das Wetter in den Bergen ist heute sehr schön."
    verdicts = LanguageMatch()(
        scored_rows([(german, 0.0, "stop", german), (german, 0.0, "stop", english), (german, 0.0, "stop", "Ja")])
    )
    assert [v.score for v in verdicts[:2]] == [1.0, 0.0] and verdicts[2].verdict == "too_short"
