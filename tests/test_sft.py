"""The SFT command's settings: adapters, precision, checkpointing, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM

from curation.errors import InputError
from curation.schema import MESSAGES
from tests.fakes import random_model
from training.models import load_model
from training.sft import SFTConfig, SFTModule, train


def rows(folder: Path, n: int = 16) -> str:
    turns = [
        [{"role": "user", "content": f"double {i}"}, {"role": "assistant", "content": str(2 * i) * (1 + i % 5)}]
        for i in range(n)
    ]
    file = folder / "rows.parquet"
    pq.write_table(pa.table({"messages": pa.array(turns, MESSAGES)}), file)
    return str(file)


def config(folder: Path, name: str = "out", **more: object) -> SFTConfig:
    defaults = {
        "model": str(random_model()), "data": rows(folder), "out": str(folder / name), "batch_size": 4, "steps": 8,
        "learning_rate": 5e-3, "log_every": 1, "resume": False,
    }  # fmt: skip
    return SFTConfig(**{**defaults, **more})


def test_adapters_from_settings_are_merged_and_left_beside(tmp_path: Path):
    from peft import PeftModel

    settings = config(tmp_path, lora_rank=4, lora_targets=("q_proj", "v_proj"))
    result = train(settings)
    assert result.fit.losses[-1] < result.fit.losses[0]
    base, merged = load_model(settings.model), AutoModelForCausalLM.from_pretrained(result.checkpoint)
    before, after = base.state_dict(), merged.state_dict()
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert changed == {k for k in before if "q_proj" in k or "v_proj" in k}
    adapted = PeftModel.from_pretrained(base, result.checkpoint / "adapter")
    ids = torch.arange(3, 20)[None]
    assert torch.allclose(adapted(ids).logits, merged(ids).logits, atol=1e-5)


def test_adapters_can_be_left_alone_and_on_every_layer(tmp_path: Path):
    result = train(config(tmp_path, lora_rank=2, lora_merge=False))
    targets = json.loads((result.checkpoint / "adapter_config.json").read_text())["target_modules"]
    assert {"q_proj", "o_proj", "down_proj"} <= {t.split(".")[-1] for t in targets}
    assert not any("lm_head" in t for t in targets) and not (result.checkpoint / "model.safetensors").exists()


@pytest.mark.parametrize("more", [{"precision": "bf16"}, {"gradient_checkpointing": True}, {"lora_rank": 2}], ids=str)
def test_every_switch_learns_and_checkpointing_changes_nothing(tmp_path: Path, more: dict):
    plain, other = train(config(tmp_path, "a")), train(config(tmp_path, "b", **more))
    assert other.fit.losses[-1] < other.fit.losses[0]
    if "gradient_checkpointing" in more:
        assert np.allclose(plain.fit.losses, other.fit.losses, atol=1e-6)
    if "precision" in more:
        assert np.allclose(plain.fit.losses, other.fit.losses, atol=0.1)
        assert AutoModelForCausalLM.from_pretrained(other.checkpoint).dtype == torch.float32


def test_checkpointing_with_adapters_gives_the_adapters_gradients(tmp_path: Path):
    shared = {"lora_rank": 2, "lora_targets": ("q_proj",)}
    plain = train(config(tmp_path, "a", **shared))
    saving = train(config(tmp_path, "b", gradient_checkpointing=True, **shared))
    assert np.allclose(plain.fit.losses, saving.fit.losses, atol=1e-6)


def test_what_cannot_be_trained_is_refused_in_one_line(tmp_path: Path):
    from peft import PromptTuningConfig, get_peft_model

    with pytest.raises(InputError, match="lora_targets: found no_such_layer"):
        train(config(tmp_path, lora_rank=2, lora_targets=("no_such_layer",)))
    virtual = get_peft_model(load_model(str(random_model())), PromptTuningConfig("CAUSAL_LM", num_virtual_tokens=2))
    with pytest.raises(InputError, match="virtual tokens"):
        SFTModule(virtual)
    with pytest.raises(InputError, match="no row to train on"):
        train(config(tmp_path, max_length=4))
    with pytest.raises(InputError, match="check --model"):
        train(config(tmp_path, model=str(tmp_path / "nothing")))
