"""Losses against the plain formula in float64."""

import math

import pytest
import torch
import torch.nn.functional as F

from training.losses import tiled_nll, token_nll, token_statistics, weighted_nll

N, H, V = 37, 16, 300


def case(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.nn.Linear, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    head = torch.nn.Linear(H, V, bias=False).to(dtype)
    return torch.randn(N, H, dtype=dtype, requires_grad=True), head, torch.randint(V, (N,)), torch.rand(N)


def oracle(hidden: torch.Tensor, head: torch.nn.Linear, targets: torch.Tensor, weights: torch.Tensor | None):
    """Loss and gradients in float64, from the definition."""
    h, w = hidden.detach().double().requires_grad_(), head.weight.detach().double().requires_grad_()
    log_p = (h @ w.T).log_softmax(-1)
    each = -log_p[torch.arange(len(targets)), targets]
    loss = each.sum() if weights is None else (each * weights.double()).sum()
    return loss, *torch.autograd.grad(loss, (h, w))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("tile", [None, 5, 37, 1000])
def test_the_sum_and_its_gradients_are_the_definitions(weighted: bool, tile: int | None):
    hidden, head, targets, w = case()
    weights = w if weighted else None
    wanted = oracle(hidden, head, targets, weights)
    if tile is None:
        loss, _ = weighted_nll(hidden, head, targets, weights)
    elif weights is None:
        loss, _ = tiled_nll(hidden, head.weight, targets, "sum", tile=tile)
    else:
        loss = (tiled_nll(hidden, head.weight, targets, "none", tile=tile)[0] * weights).sum()
    got = (loss, *torch.autograd.grad(loss, (hidden, head.weight)))
    for a, b in zip(got, wanted, strict=True):
        assert torch.allclose(a.double(), b, atol=1e-5)


@pytest.mark.parametrize("tile", [1, 5 * V * 4, 1 << 30])
@pytest.mark.parametrize("frozen", ["none", "head", "hidden"])
def test_one_buffer_on_cpu_gives_each_loss_and_both_gradients(monkeypatch: pytest.MonkeyPatch, tile: int, frozen: str):
    monkeypatch.setattr("training.losses.CPU_TILE_BYTES", tile)
    hidden, head, targets, w = case()
    hidden.requires_grad_(frozen != "hidden")
    head.weight.requires_grad_(frozen != "head")
    each, _ = token_nll(hidden, head, targets)
    (each * w).sum().backward()
    wanted = oracle(hidden, head, targets, w)
    assert torch.allclose((each * w).sum().double(), wanted[0], atol=1e-5)
    for tensor, slope in ((hidden, wanted[1]), (head.weight, wanted[2])):
        assert (
            tensor.grad is None if not tensor.requires_grad else torch.allclose(tensor.grad.double(), slope, atol=1e-5)
        )
    with torch.no_grad():
        assert torch.equal(token_nll(hidden, head, targets)[0], each)


def test_one_buffer_takes_logits_of_any_size():
    head = torch.nn.Linear(1, 3, bias=False)
    head.weight.data = torch.tensor([[1e4], [-1e4], [0.0]])
    each, _ = token_nll(torch.ones(2, 1, requires_grad=True), head, torch.tensor([0, 1]))
    assert each.tolist() == [0.0, 2e4]


def test_tiles_under_autocast_take_its_type_and_give_fp32_gradients():
    hidden, head, targets, _ = case()
    wanted = oracle(hidden, head, targets, None)
    with torch.autocast("cpu", torch.bfloat16):
        loss, found = tiled_nll(hidden, head.weight, targets, "sum", measure=True, tile=8)
    slopes = torch.autograd.grad(loss, (hidden, head.weight))
    assert loss.dtype == torch.float32 and all(g.dtype == torch.float32 for g in slopes)
    assert abs(loss - wanted[0]) < 2e-2 * wanted[0] and len(found.hit) == N
    assert all(
        F.cosine_similarity(a.flatten().double(), b.flatten(), 0) > 0.999
        for a, b in zip(slopes, wanted[1:], strict=True)
    )


def test_half_precision_logits_are_scored_in_fp32():
    logits = torch.randn(4, 9).bfloat16()
    targets = torch.tensor([1, 2, 3, 4])
    loss, _ = weighted_nll(logits, None, targets, None)
    assert loss.dtype == torch.float32 and torch.equal(loss, F.cross_entropy(logits.float(), targets, reduction="sum"))


def test_statistics_are_entropy_hits_and_mean_logits_however_tiled():
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]))
    found = token_statistics(logits, torch.tensor([0, 2]))
    wanted = [sum(-p * math.log(p) for p in row) for row in ([0.5, 0.25, 0.25], [0.1, 0.8, 0.1])]
    assert torch.allclose(found.entropy, torch.tensor(wanted)) and found.hit.tolist() == [True, False]
    assert torch.allclose(found.mean_logit, logits.mean(1))
    hidden, head, targets, _ = case()
    _, whole = weighted_nll(hidden, head, targets, None, measure=True)
    each, tiled = tiled_nll(hidden, head.weight, targets, "none", measure=True, tile=7)
    assert all(torch.allclose(a.float(), b.float(), rtol=1e-5) for a, b in zip(whole, tiled, strict=True))
    assert torch.allclose(each, token_nll(hidden, head, targets)[0], atol=1e-5)


def test_an_adapter_on_the_head_is_heeded():
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    base = LlamaForCausalLM(
        LlamaConfig(vocab_size=V, hidden_size=H, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2)
    )
    model = get_peft_model(base, LoraConfig(target_modules=["lm_head"], r=2, init_lora_weights=False))
    hidden, _, targets, _ = case()
    head = model.get_base_model().get_output_embeddings()
    loss, _ = weighted_nll(hidden, head, targets, None)
    assert torch.allclose(loss, F.cross_entropy(head(hidden), targets, reduction="sum"))
    assert not torch.allclose(
        loss, F.cross_entropy(hidden @ base.lm_head.base_layer.weight.T, targets, reduction="sum")
    )
    loss.backward()
    assert all(p.grad is not None for n, p in model.named_parameters() if "lora" in n)


def test_no_supervised_position_is_a_loss_of_zero():
    _, head, _, _ = case()
    hidden = torch.zeros(0, H, requires_grad=True)
    loss, _ = weighted_nll(hidden, head, torch.zeros(0, dtype=torch.long), None)
    loss.backward()
    assert loss == 0
