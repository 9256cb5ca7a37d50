"""The toy world: truths are true, sides never mix, the same recipe makes the same weights."""

import hashlib
from pathlib import Path

import pytest

from curation.errors import InputError
from curation.math_reward import MathReward
from pipelines.toy import ToyRecipe, make_toy_world, toy_home, toy_model, toy_prompts
from pipelines.toy_tasks import TASKS, draw, questions, split_of
from pipelines.toy_tokenizer import toy_tokenizer


def test_every_sum_has_a_true_answer_and_true_steps():
    for q in questions("sums", "train")[::37]:
        a, b = map(int, q.text.removeprefix("What is ").removesuffix("?").split("+"))
        assert q.truth == str(a + b)
        for step in q.steps.rstrip(".").split(". "):
            left, right = step.split("=")
            assert sum(map(int, left.split("+"))) == int(right)


@pytest.mark.parametrize("task", ["sums", "instructions", "calculator"])
def test_the_two_sides_share_no_prompt(task: str):
    train, heldout = ({q.text for q in questions(task, side)} for side in ("train", "heldout"))
    assert train and heldout and not train & heldout and all(split_of(t) == "train" for t in train)


def test_what_is_drawn_follows_from_the_seed():
    assert draw("sums", "train", 50, 1) == draw("sums", "train", 50, 1) != draw("sums", "train", 50, 2)
    assert len({q.text for q in draw("sums", "train", 500, 1)}) == 500


def test_every_answer_survives_the_tokenizer():
    tokenizer = toy_tokenizer()
    for task in TASKS:
        for q in draw(task, "train", 20, 0):
            text = f"<think>{q.steps}</think>{q.answer}"
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            assert tokenizer.decode(ids) == text and tokenizer.unk_token_id not in ids


def test_prompts_carry_truths_that_their_reward_accepts():
    rows = toy_prompts("sums", "heldout", 20, 0)
    answered = rows.append_column("completion", rows["ground_truth"])
    assert [v.score for v in MathReward()(answered)] == [1.0] * 20


def test_the_same_recipe_makes_the_same_world_whole_or_not_at_all(tmp_path: Path):
    recipe = ToyRecipe(base_steps=2, teacher_steps=2, batch=8)
    for name in ("a", "b"):
        make_toy_world(recipe, tmp_path / name)
    digests = [
        [hashlib.sha256((tmp_path / n / m / "model.safetensors").read_bytes()).hexdigest() for m in ("base", "teacher")]
        for n in ("a", "b")
    ]
    assert digests[0] == digests[1] and digests[0][0] != digests[0][1]
    assert not list(tmp_path.glob(".*")) and toy_home(recipe) != toy_home(ToyRecipe())


def test_an_unknown_toy_is_one_line():
    with pytest.raises(InputError, match="toy:base"):
        toy_model("huge")
