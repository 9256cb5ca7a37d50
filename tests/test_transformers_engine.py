"""The in-process sampler against a full forward and against transformers' own generate."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from curation.chat import encode_chat
from curation.engine import Request, Sampling, sample_seed
from curation.errors import EngineError
from curation.sampler import choose, filtered, uniforms
from curation.transformers_engine import TransformersEngine, _load, auto_engine
from curation.weights import model_identity
from pipelines.toy_tasks import draw
from tests.fakes import random_model


def requests(n: int = 9, k: int = 3, **settings: object) -> list[Request]:
    questions = draw("sums", "train", n - n // 3, 0) + draw("instructions", "train", n // 3, 0)
    sampling = Sampling(**{"max_tokens": 12, "seed": 1, **settings})
    return [Request(f"p{i}", q.messages, tuple(range(k)), sampling) for i, q in enumerate(questions)]


def answers(asked: list[Request], **settings: object) -> dict:
    engine = TransformersEngine(str(random_model()), **settings)
    return {(r.prompt_id, reply.sample): reply for r, replies in engine.answer(asked) for reply in replies}


def reference():
    path = random_model()
    return AutoTokenizer.from_pretrained(path), AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)


def test_greedy_tokens_are_those_of_generate():
    tokenizer, model = reference()
    got = answers(requests(k=1, temperature=0.0))
    for request in requests(k=1):
        ids = torch.tensor([encode_chat(tokenizer, request.messages, add_generation_prompt=True)])
        made = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12, pad_token_id=0
        )
        tail = made[0, ids.shape[1] :].tolist()
        assert got[request.prompt_id, 0].text == tokenizer.decode(tail, skip_special_tokens=True)
        assert got[request.prompt_id, 0].tokens == len(tail)


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_log_probabilities_are_those_of_a_full_forward(temperature: float):
    tokenizer, model = reference()
    loaded = _load(model_identity(str(random_model())), TransformersEngine(str(random_model())))
    from curation.sampler import draw as sample

    asked = requests()
    prompts = [encode_chat(tokenizer, r.messages, add_generation_prompt=True) for r in asked]
    seeds = [[sample_seed(1, r.prompt_id, s) for s in r.samples] for r in asked]
    drawn = sample(
        loaded.model,
        prompts,
        seeds,
        asked[0].sampling.__class__(temperature=temperature, max_tokens=12),
        loaded.end_ids,
    )
    for prompt, group in zip(prompts, drawn, strict=True):
        for one in group:
            with torch.no_grad():
                logits = model(torch.tensor([prompt + one.tokens])).logits[0, len(prompt) - 1 : -1]
            expected = (logits / (temperature or 1.0)).log_softmax(-1)[range(len(one.tokens)), one.tokens]
            assert np.allclose(one.logprobs, expected.numpy(), atol=1e-5)


def test_a_sample_does_not_depend_on_what_shares_its_batch():
    whole = answers(requests())
    alone = {}
    for request in requests():
        for s in request.samples:
            alone |= answers([request._replace(samples=(s,))], rows=1)
    assert {k: v.text for k, v in whole.items()} == {k: v.text for k, v in alone.items()}
    assert all(abs(whole[k].logprob - alone[k].logprob) < 1e-4 for k in whole)


def test_the_same_seed_gives_the_same_samples_and_another_seed_others():
    assert answers(requests()) == answers(requests())
    assert {k: v.text for k, v in answers(requests()).items()} != {
        k: v.text for k, v in answers(requests(seed=2)).items()
    }


def test_finish_reasons_and_stop_strings():
    cut = answers(requests(max_tokens=2))
    assert {r.finish_reason for r in cut.values()} <= {"stop", "length"} and any(
        r.finish_reason == "length" for r in cut.values()
    )
    free = answers(requests(max_tokens=40))
    letter = next(c for r in free.values() for c in r.text if c.isalpha())
    stopped = answers(requests(max_tokens=40, stop=(letter,)))
    assert all(letter not in r.text for r in stopped.values())
    assert all(stopped[k].text == free[k].text.split(letter)[0] for k in free)


def test_a_prompt_that_leaves_no_room_is_rejected_and_the_others_are_answered():
    asked = [*requests(), Request("long", [{"role": "user", "content": "x" * 300}], (0,), Sampling(max_tokens=12))]
    got = answers(asked)
    assert got["long", 0].error.startswith("rejected") and len(got) == 28


def test_samples_follow_the_distribution_they_are_said_to():
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05])).repeat(20000, 1)
    uniform = torch.from_numpy(uniforms(np.arange(20000, dtype=np.uint64), 0))
    tokens, logprobs = choose(logits, Sampling(), uniform)
    assert np.allclose(np.bincount(tokens.numpy()) / 20000, [0.5, 0.3, 0.15, 0.05], atol=0.015)
    assert torch.allclose(logprobs.exp(), torch.tensor([0.5, 0.3, 0.15, 0.05])[tokens], atol=1e-5)


def test_top_k_and_the_nucleus_leave_what_they_should():
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]]))
    assert torch.isfinite(filtered(logits, 2, 1.0)).tolist() == [[True, True, False, False]]
    assert torch.isfinite(filtered(logits, 0, 0.6)).tolist() == [[True, True, False, False]]
    assert torch.isfinite(filtered(logits, 0, 0.01)).tolist() == [[True, False, False, False]]


@pytest.mark.parametrize("model", ["/no/such/folder", "./nothing", "tests"])
def test_a_missing_model_is_one_line(model: str):
    with pytest.raises(EngineError) as e:
        auto_engine(model).identity()
    assert "\n" not in str(e.value)


def test_identity_follows_the_weights(tmp_path):
    import shutil

    shutil.copytree(random_model(), tmp_path / "m")
    before = model_identity(str(tmp_path / "m"))
    config = tmp_path / "m" / "config.json"
    config.write_text(config.read_text() + " ")
    assert model_identity(str(tmp_path / "m")) != before and before.startswith("m@")
