"""DPO and reward training: sharing a prompt is exact, the reference is the start, resuming is the same run."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

from curation.errors import InputError
from curation.pair_source import read_pairs
from pipelines.toy_tasks import draw
from tests.fakes import random_model, train_on_two_ranks
from training import dpo, reward
from training.distributed import ranks
from training.dpo import DPOConfig, DPOModule
from training.models import load_model, load_reward_model
from training.pairs import PairExample, encode_pairs, pack_pairs, unshared
from training.preference_losses import AT_START
from training.reference import ReferenceLogprobs, reference_logps, with_reference
from training.reward import RewardConfig, RewardModule

ROOT = Path(__file__).resolve().parents[1]


def rows(n: int = 12) -> pa.Table:
    questions = draw("sums", "train", n, 0)
    return pa.table(
        {
            "prompt": [q.text for q in questions],
            "chosen": [q.steps + q.answer for q in questions],
            "rejected": [q.answer + "!" * (i % 4 + 1) for i, q in enumerate(questions)],
        }
    )


@pytest.fixture
def data(tmp_path: Path) -> str:
    pq.write_table(rows(), tmp_path / "pairs.parquet")
    return str(tmp_path / "pairs.parquet")


def examples(data: str) -> list[PairExample]:
    return encode_pairs(AutoTokenizer.from_pretrained(random_model()), read_pairs(data).rows, 256)[0]


def settings(kind: type, data: str, tmp_path: Path, **more: object):
    given = {"batch_size": 4, "steps": 6, "learning_rate": 1e-3, "log_every": 1, "resume": False}
    return kind(str(random_model()), data, str(tmp_path / "out"), **{**given, **more})


def oracle_logps(model, example) -> torch.Tensor:
    """log p of one completion from the definition: one document, all logits."""
    ids = torch.from_numpy(example.ids)[None]
    log_p = model(input_ids=ids).logits[0, :-1].double().log_softmax(-1)
    each = log_p[torch.arange(ids.shape[1] - 1), ids[0, 1:]]
    return each[torch.from_numpy(example.taught[1:])].sum()


def test_both_sides_share_exactly_what_they_begin_with(data: str):
    for e in examples(data):
        n = e.shared
        assert (e.chosen.ids[:n] == e.rejected.ids[:n]).all() and n >= e.chosen.taught.argmax()
        assert min(e.chosen.tokens, e.rejected.tokens) == n + 1 or e.chosen.ids[n] != e.rejected.ids[n]


@pytest.mark.parametrize("kv_heads", [2, 4])
@pytest.mark.parametrize("share", [True, False])
def test_log_probabilities_are_those_of_each_answer_alone(data: str, share: bool, kv_heads: int):
    model, found = load_model(str(random_model(kv_heads=kv_heads))), examples(data)
    config = DPOConfig("", "", "", micro_tokens=120)
    with torch.no_grad(), ranks() as group:
        module = DPOModule(model, config)
        got = reference_logps(module.run, found if share else unshared(found), config, group)
        model.set_attn_implementation("eager")
        wanted = [[oracle_logps(model, side).item() for side in (e.chosen, e.rejected)] for e in found]
    assert np.allclose(got, wanted, atol=1e-4)


@pytest.mark.parametrize("loss", ["sigmoid", "ipo", "simpo"])
def test_gradients_with_a_shared_prefix_are_those_without(data: str, loss: str):
    found = with_reference(examples(data), {i: (-9.0 - i, -8.0) for i in range(12)})
    grads = []
    for share in (True, False):
        model = load_model(str(random_model())).double()
        module = DPOModule(model, DPOConfig("", "", "", loss=loss, sft_weight=0.3))
        given = found if share else unshared(found)
        batch = pack_pairs(given, given)
        (module(batch, False)[0] / batch.supervised).backward()
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert torch.allclose(*grads, atol=1e-6) and grads[0].abs().max() > 1e-3


def test_the_first_loss_is_ln_2_and_steps_do_not_depend_on_how_they_are_cut(data: str, tmp_path: Path):
    losses = []
    for name, more in {"whole": {}, "cut": {"micro_tokens": 60}, "plain": {"share_prefix": False}}.items():
        result = dpo.train(settings(DPOConfig, data, tmp_path / name, sft_weight=0.1, beta=0.5, **more))
        losses.append(result.fit.losses)
    assert np.allclose(losses[0], losses[1], atol=1e-5) and np.allclose(losses[0], losses[2], atol=1e-5)
    plain = dpo.train(settings(DPOConfig, data, tmp_path / "ln2")).fit.losses
    assert plain[0] == pytest.approx(AT_START["sigmoid"](DPOConfig("", "", "").settings), abs=1e-5)
    assert plain[-1] < plain[0] - 0.01


@pytest.mark.parametrize("module", [dpo, reward], ids=["dpo", "reward"])
def test_a_run_stopped_and_resumed_is_the_same_run(data: str, tmp_path: Path, module):
    kind = DPOConfig if module is dpo else RewardConfig
    whole = module.train(settings(kind, data, tmp_path / "whole", save_every=2))
    config = settings(kind, data, tmp_path / "parts", save_every=2, resume=True)
    module.train(config)
    for late in sorted((Path(config.out) / "checkpoints").glob("step-0000000[56]")):
        for file in late.iterdir():
            file.unlink()
        late.rmdir()
    again = module.train(config)
    states = [torch.load(p.checkpoint / "checkpoints/step-00000006/state.pt", weights_only=True)["model"] for p in (whole, again)]  # fmt: skip
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    lines = [(p.checkpoint / "metrics.jsonl").read_text() for p in (whole, again)]
    assert lines[0] == lines[1]


def test_metrics_have_trls_names(data: str, tmp_path: Path):
    result = dpo.train(settings(DPOConfig, data, tmp_path, steps=1))
    found = json.loads((result.checkpoint / "metrics.jsonl").read_text().splitlines()[0])
    sides = {f"{name}/{side}" for name in ("rewards", "logps", "logits") for side in ("chosen", "rejected")}
    assert sides | {"rewards/margins", "rewards/accuracies", "entropy", "mean_token_accuracy", "epoch"} <= set(found)
    result = reward.train(settings(RewardConfig, data, tmp_path / "rm", steps=1))
    found = json.loads((result.checkpoint / "metrics.jsonl").read_text().splitlines()[0])
    assert {"accuracy", "margin", "mean_reward", "min_reward", "max_reward"} <= set(found)


def test_a_reference_in_the_shard_is_used_where_it_fits_and_computed_where_not(data: str, tmp_path: Path):
    stage = ReferenceLogprobs(str(random_model()))
    table = stage(read_pairs(data).rows)
    pq.write_table(table, tmp_path / "cached.parquet")
    plain = dpo.train(settings(DPOConfig, data, tmp_path / "a")).fit.losses
    cached = dpo.train(settings(DPOConfig, str(tmp_path / "cached.parquet"), tmp_path / "b")).fit.losses
    assert np.allclose(plain, cached, atol=1e-6)
    wrong = table.set_column(table.column_names.index("ref_chosen_logps"), "ref_chosen_logps", pa.array([-1.0] * 12))
    pq.write_table(wrong, tmp_path / "wrong.parquet")
    config = settings(DPOConfig, str(tmp_path / "wrong.parquet"), tmp_path / "c")
    with pytest.raises(InputError, match="policy = reference"):
        dpo.train(config)
    # Another model's key: not used at all.
    other = table.set_column(table.column_names.index("ref_key"), "ref_key", pa.array(["x"] * 12))
    pq.write_table(other, tmp_path / "other.parquet")
    assert np.allclose(
        dpo.train(settings(DPOConfig, str(tmp_path / "other.parquet"), tmp_path / "d")).fit.losses, plain
    )


def test_a_row_of_weight_zero_teaches_nothing(data: str):
    found = with_reference(examples(data), {i: (-9.0 - i, -8.0) for i in range(12)})
    silent = dataclasses.replace(found[0], weight=0.0)
    grads = []
    for batch in (pack_pairs([silent, *found[1:]], found), pack_pairs(found[1:], found)):
        model = load_model(str(random_model()))
        DPOModule(model, DPOConfig("", "", ""))(batch, False)[0].backward()
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert batch.supervised == 11 and torch.allclose(*grads, atol=1e-6)


@pytest.mark.parametrize("share", [True, False])
def test_a_reward_is_read_at_the_last_token_of_each_answer(data: str, share: bool):
    torch.manual_seed(0)
    model, found = load_reward_model(str(random_model())), examples(data)
    with torch.no_grad():
        given = found if share else unshared(found)
        got = RewardModule(model, RewardConfig("", "", "", share_prefix=share)).scores(pack_pairs(given, given))
        model.set_attn_implementation("eager")
        sides = [side for e in found for side in (e.chosen, e.rejected)]
        wanted = [model.score(model.model(torch.from_numpy(s.ids)[None]).last_hidden_state[0, -1]) for s in sides]
    assert torch.allclose(got, torch.cat(wanted), atol=1e-5)


def test_reward_loss_is_bradley_terry_with_margin_and_centering():
    a, b, m = torch.tensor([1.0, 0.2]), torch.tensor([0.5, 0.9]), torch.tensor([0.1, 0.0])
    assert torch.allclose(reward.reward_loss(a, b, m, 0.1), -F.logsigmoid(a - b - m) + 0.1 * (a + b) ** 2)


def test_a_reward_model_learns_and_is_saved_for_any_engine(data: str, tmp_path: Path):
    result = reward.train(settings(RewardConfig, data, tmp_path, steps=30, learning_rate=3e-3))
    assert result.fit.losses[-1] < 0.1 < result.fit.losses[0]
    again = load_reward_model(str(result.checkpoint))
    assert again.config.num_labels == 1 and again.score.weight.abs().sum() > 0


def test_adapters_train_and_merge(data: str, tmp_path: Path):
    pytest.importorskip("peft")
    result = dpo.train(settings(DPOConfig, data, tmp_path, lora_rank=2, learning_rate=1e-2))
    assert result.fit.losses[0] == pytest.approx(0.6931, abs=1e-3) and result.fit.losses[-1] < 0.69
    AutoModelForCausalLM.from_pretrained(result.checkpoint)


def test_pairs_that_cannot_be_trained_on_leave_with_a_reason(tmp_path: Path):
    long = rows(3).set_column(1, "chosen", pa.array(["x" * 300, "a", "b"]))
    pq.write_table(long, tmp_path / "pairs.parquet")
    read = read_pairs(str(tmp_path / "pairs.parquet"))
    kept, account = encode_pairs(AutoTokenizer.from_pretrained(random_model()), read.rows, 64)
    assert len(kept) == 2 and account.reasons() == {"too_long": 1}


@pytest.mark.parametrize(("method", "parallel"), [("dpo", "ddp"), ("dpo", "fsdp2"), ("reward", "ddp")])
def test_two_ranks_train_as_one(data: str, tmp_path: Path, method: str, parallel: str):
    kind = DPOConfig if method == "dpo" else RewardConfig
    one = (dpo if method == "dpo" else reward).train(settings(kind, data, tmp_path / "one"))
    words = ["--model", str(random_model()), "--data", data, "--out", str(tmp_path / "two"), "--batch-size", "4", "--steps", "6",
             "--learning-rate", "1e-3", "--log-every", "1", "--no-resume", "--parallel", parallel]  # fmt: skip
    train_on_two_ranks(method, *words)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "two/metrics.jsonl").read_text().splitlines()]
    assert np.allclose(losses, one.fit.losses, atol=1e-5)
    load = load_model if method == "dpo" else load_reward_model
    a, b = (load(str(p)).state_dict() for p in (one.checkpoint, tmp_path / "two"))
    assert max((a[k] - b[k]).abs().max().item() for k in a) < 1e-5
