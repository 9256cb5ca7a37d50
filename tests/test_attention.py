"""Documents side by side must come out as they do alone, in every architecture, or be run padded."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

from training.attention import NAME, document_attention, layout_of
from training.data import Example, MicroBatch, pack
from training.sft import SFTModule

SMALL = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
# name: (settings, packs, the head is all there is behind the hidden states)
ARCHITECTURES = {
    "llama": ({}, True, True),
    "qwen2": ({}, True, True),
    "qwen3": ({"head_dim": 16}, True, True),
    "mistral": ({"sliding_window": None}, True, True),
    "mistral windowed": ({"sliding_window": 4}, False, True),
    "qwen2 windowed": ({"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}, False, True),
    "gemma2": ({"head_dim": 8, "sliding_window": 4}, False, False),  # windows, capped logits
    "granite": ({"logits_scaling": 8.0}, True, False),
    "cohere": ({"logit_scale": 0.25}, True, False),
    "qwen3_moe": ({"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}, True, True),
    "bloom": ({"n_layer": 2, "n_head": 4}, False, True),  # ALiBi
    "mamba": ({"state_size": 8}, False, True),  # a state runs along the row
}


def documents(lengths: list[int], seed: int = 0) -> list[Example]:
    rng = np.random.default_rng(seed)
    found = []
    for n in lengths:
        taught = rng.random(n) < 0.5
        taught[0], taught[-1] = False, True
        found.append(Example("", rng.integers(3, 64, n), taught))
    return found


def alone(model: torch.nn.Module, docs: list[Example]) -> torch.Tensor:
    """The summed loss with the model's own attention and logits, one document at a time."""
    total = torch.zeros((), dtype=torch.float64)
    for d in docs:
        logits = model(input_ids=torch.from_numpy(d.ids)[None], use_cache=False).logits[0].double()
        at = np.flatnonzero(d.taught)
        total = total + F.cross_entropy(logits[at - 1], torch.from_numpy(d.ids[at]), reduction="sum")
    return total


def gradient(model: torch.nn.Module, loss: torch.Tensor) -> torch.Tensor:
    used = [p for p in model.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, used, allow_unused=True)
    return torch.cat(
        [torch.zeros_like(p).flatten() if g is None else g.flatten() for p, g in zip(used, found, strict=True)]
    )


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_loss_and_gradient_are_those_of_each_document_alone(name: str):
    more, packs, plain = ARCHITECTURES[name]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name.split()[0], **{**SMALL, **more})).eval()
    docs = documents([3, 9, 9, 4, 12, 20, 9])
    wanted = alone(model, docs)
    slope = gradient(model, wanted)
    module = SFTModule(model).eval()
    assert (module.run.packs, module.run.plain_head) == (packs, plain)
    loss, _ = module(pack(docs), True)
    assert abs(loss.item() - wanted.item()) < 1e-4
    assert torch.allclose(gradient(model, loss), slope, atol=2e-4)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_last_mlp_sees_only_positions_that_are_read(checkpointing: bool):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SMALL)).train()
    docs = documents([9, 12, 20])
    wanted = alone(model, docs)
    slope = gradient(model, wanted)
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    module, batch, rows = SFTModule(model), pack(docs), []
    assert module.run.reads and SFTModule(model).run.reads, (
        "a second Forward on the same model is no second restriction"
    )
    model.model.layers[-1].mlp.gate_proj.register_forward_hook(lambda _, args, out: rows.append(args[0].shape[1]))
    loss, _ = module(batch, False)
    assert torch.allclose(gradient(model, loss), slope, atol=2e-4)
    assert rows == [len(batch.read)] * (1 + checkpointing) and len(batch.read) < batch.tokens
    with torch.no_grad():
        plain = model(input_ids=torch.from_numpy(docs[0].ids)[None], **packed_alone(docs[0])).logits
    assert rows[-1] == plain.shape[1], "called by anybody else, the model is whole"


def packed_alone(doc: Example) -> dict:
    return {"use_cache": False, "layout": layout_of([(doc.tokens, ())])}


def test_what_is_not_switched_stays_as_it_was():
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("mistral", **SMALL, sliding_window=4))
    before = model.config._attn_implementation
    model.eval()
    assert not SFTModule(model).run.packs and model.config._attn_implementation == before and not model.training


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=8), heads=st.sampled_from([(4, 4), (4, 2), (4, 1)]))
@settings(max_examples=40, deadline=None)
def test_attention_is_that_of_a_block_diagonal_mask(lengths: list[int], heads: tuple[int, int]):
    docs = [Example("", np.arange(n), np.arange(n) > 0) for n in lengths]
    batch: MicroBatch = pack(docs)
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, h, batch.tokens, 8, dtype=torch.float64) for h in (heads[0], heads[1], heads[1]))
    out, _ = document_attention(torch.nn.Identity(), q, k, v, None, scaling=0.3, layout=batch.layout)
    owner = torch.repeat_interleave(torch.arange(len(lengths)), torch.diff(batch.layout.queries).long())
    mask = (owner[:, None] == owner[None]) & torch.ones(batch.tokens, batch.tokens, dtype=torch.bool).tril()
    wanted = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.3, enable_gqa=True).transpose(1, 2)
    assert torch.allclose(out, wanted)


def test_under_autocast_attention_computes_in_bf16():
    """Rotary embedding leaves queries in fp32 there; without a cast CUDA would never take its fast path."""
    q = torch.randn(1, 2, 6, 8)
    with torch.autocast("cpu", torch.bfloat16):
        out, _ = document_attention(torch.nn.Identity(), q, q, q.bfloat16(), None, layout=layout_of([(3, ()), (3, ())]))
    assert out.dtype == torch.bfloat16


def test_the_name_is_unknown_to_the_mask_registry():
    """What keeps transformers from building a mask; a release that changes this must be noticed."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

    assert NAME not in ALL_MASK_ATTENTION_FUNCTIONS.valid_keys()
