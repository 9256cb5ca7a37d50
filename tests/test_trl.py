"""Real TRL on our shards, unconverted: it loads them, sees the tokens we see, and takes steps."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

trl = pytest.importorskip("trl", reason="TRL is not installed here; `make test-trl` runs this with the real one")
pytestmark = pytest.mark.trl

import torch  # noqa: E402
from datasets import Dataset, load_dataset  # noqa: E402
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer  # noqa: E402

from curation.messages import ToMessages  # noqa: E402
from curation.pairs import OnPolicyPairs  # noqa: E402
from tests.fakes import random_model, scored_rows  # noqa: E402

QUIET = {"report_to": "none", "use_cpu": True, "bf16": False, "save_strategy": "no", "disable_tqdm": True, "max_steps": 2,
         "per_device_train_batch_size": 2, "logging_steps": 1, "gradient_checkpointing": False}  # fmt: skip
ROWS = [
    (f"What is {i}+{i}?", s, "stop", t) for i in range(6) for s, t in ((1.0, f"It is {2 * i}."), (0.0, f"{i} and {i}"))
]


@pytest.fixture
def sft(tmp_path: Path) -> Dataset:
    pq.write_table(ToMessages()(scored_rows(ROWS)), tmp_path / "sft.parquet")
    return load_dataset(
        "parquet", data_files=str(tmp_path / "sft.parquet"), split="train", cache_dir=str(tmp_path / "c")
    )


@pytest.fixture
def dpo(tmp_path: Path) -> Dataset:
    pairs = OnPolicyPairs(rule="correct_wrong")(scored_rows(ROWS)).rows
    assert pairs.num_rows == 6
    pq.write_table(pairs, tmp_path / "dpo.parquet")
    return load_dataset(
        "parquet", data_files=str(tmp_path / "dpo.parquet"), split="train", cache_dir=str(tmp_path / "c")
    )


def losses(trainer) -> list[float]:
    trainer.train()
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


def test_sft_shards(sft: Dataset, tmp_path: Path):
    settings = trl.SFTConfig(output_dir=str(tmp_path / "o"), **QUIET)
    tokenizer = AutoTokenizer.from_pretrained(random_model())
    model = AutoModelForCausalLM.from_pretrained(random_model(), dtype=torch.float32)
    assert len(losses(trl.SFTTrainer(model, settings, train_dataset=sft, processing_class=tokenizer))) == 2


def test_dpo_shards_give_ln_2_at_the_start_and_the_tokens_of_our_trainer(dpo: Dataset, tmp_path: Path):
    settings = trl.DPOConfig(output_dir=str(tmp_path / "o"), **QUIET)
    tokenizer = AutoTokenizer.from_pretrained(random_model())
    model = AutoModelForCausalLM.from_pretrained(random_model(), dtype=torch.float32)
    trainer = trl.DPOTrainer(model, args=settings, train_dataset=dpo, processing_class=tokenizer)
    from training.pairs import encode_pairs

    ours = {e.pair_id: e for e in encode_pairs(tokenizer, dpo.with_format("arrow")[:], 1024)[0]}
    for row in trainer.train_dataset:
        pair = ours[row["pair_id"]]
        for side in ("chosen", "rejected"):
            mine = getattr(pair, side)
            assert row["prompt_ids"] + row[f"{side}_ids"] == mine.ids.tolist()
            assert int(mine.taught.sum()) == len(row[f"{side}_ids"])
    assert losses(trainer)[0] == pytest.approx(0.6931, abs=1e-3)


def test_reward_shards(dpo: Dataset, tmp_path: Path):
    settings = trl.RewardConfig(output_dir=str(tmp_path / "o"), **QUIET)
    tokenizer = AutoTokenizer.from_pretrained(random_model())
    model = AutoModelForSequenceClassification.from_pretrained(random_model(), num_labels=1, dtype=torch.float32)
    assert len(losses(trl.RewardTrainer(model, args=settings, train_dataset=dpo, processing_class=tokenizer))) == 2
