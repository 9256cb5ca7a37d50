"""Models as trainers need them: loaded from safetensors, given adapters, saved as folders any engine loads."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from curation.errors import InputError
from training.config import TrainConfig
from training.distributed import Ranks


def load_tokenizer(model: str) -> Any:
    """The model's tokenizer. Raises InputError where there is none."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    except (OSError, ValueError) as e:
        raise InputError(
            f"model {model}", _first_line(e), "a folder or Hub id with a tokenizer", "check --model"
        ) from e


def load_model(model: str) -> Any:
    """A causal language model's weights in fp32, from safetensors only. Raises InputError."""
    from transformers import AutoModelForCausalLM

    return _load(AutoModelForCausalLM, model)


def load_reward_model(model: str) -> Any:
    """A model with one number as output; the head is new (drawn from torch's seed) where the folder has none."""
    from transformers import AutoModelForSequenceClassification

    return _load(AutoModelForSequenceClassification, model, num_labels=1)


def _load(kind: Any, model: str, **more: Any) -> Any:
    from transformers.utils import logging

    from curation.weights import hide_loading_bars

    hide_loading_bars()
    before = logging.get_verbosity()
    logging.set_verbosity_error()  # it reports a missing head, which is the point here
    try:
        return kind.from_pretrained(model, dtype=torch.float32, trust_remote_code=False, use_safetensors=True, **more)
    except (OSError, ValueError) as e:
        raise InputError(
            f"model {model}", _first_line(e), "a folder or Hub id with safetensors", "check --model"
        ) from e
    finally:
        logging.set_verbosity(before)


def inner(model: Any) -> Any:
    """The transformers model inside a PEFT wrapper, or the model itself. Adapters stay in place within it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def refuse_virtual_tokens(model: Any) -> None:
    """Raises InputError for PEFT's prompt learning: its virtual tokens would be passed over."""
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        raise InputError(
            "model", "a PEFT model with virtual tokens", "adapters inside the model, such as LoRA",
            "train prompt-learning models with PEFT's own tools",
        )  # fmt: skip


def with_adapters(model: Any, config: TrainConfig, task: str) -> Any:
    """The model with fresh LoRA adapters (Hu et al. 2021), everything else frozen. `task` is PEFT's. Raises InputError."""
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as e:
        raise InputError("lora_rank", "peft not installed", "peft", "pip install 'thresher[peft]'") from e
    every = config.lora_targets == ("all-linear",)
    settings = LoraConfig(
        r=config.lora_rank, lora_alpha=config.lora_alpha, task_type=task,
        target_modules="all-linear" if every else list(config.lora_targets),
    )  # fmt: skip
    try:
        return get_peft_model(model, settings)
    except ValueError as e:
        names = ", ".join(config.lora_targets)
        raise InputError("lora_targets", names, "names of layers in the model", _first_line(e)) from e


def without_dropout(model: nn.Module) -> None:
    """Switch every dropout off for good: preference losses compare the policy with a reference that has none."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    config = getattr(inner(model), "config", None)
    for name in _dropout_settings(vars(config) if config else ()):
        setattr(config, name, 0.0)
    for module in model.modules():  # attention layers keep their own copy of the rate
        if isinstance(getattr(module, "attention_dropout", None), float):
            setattr(module, "attention_dropout", 0.0)  # noqa: B010 - no module declares it


def _dropout_settings(names: Sequence[str] | dict[str, Any]) -> list[str]:
    return [n for n in names if n.endswith(("dropout", "pdrop"))]


def save_model(model: Any, tokenizer: Any, out: Path, group: Ranks) -> None:
    """Model and tokenizer as a folder any engine loads. Sharded weights are gathered first (all ranks)."""
    state = None
    if group.world > 1:
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

        state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if not group.first:
        return
    inner(model).set_attn_implementation("sdpa")  # what is saved must load without this file
    model.save_pretrained(out, state_dict=state)
    tokenizer.save_pretrained(out)


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:200]
