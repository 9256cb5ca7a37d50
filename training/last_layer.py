"""The last layer's output projection and MLP where somebody reads their output, and nowhere else.

Above the last attention a token's hidden state depends on that token alone, and a loss reads few of them: those that
predict a taught token, or the last of each sequence. The prompt's share of those products is computed neither forward
nor backward. Attention is left whole: the prompt's keys and values are needed.
"""

from typing import Any

import torch
from torch import nn

from training.attention import hidden_packed
from training.distributed import decoder_layers

TRIED = (1, 4, 5, 8, 10)  # positions of the trial that are read


class _Reader:
    """Hooks of one layer. Positions come with every call, so that a recomputed layer sees them as well."""

    def __init__(self) -> None:
        self.read: torch.Tensor | None = None
        self.length = 0

    def begin(self, layer: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        self.read = named.get("read")

    def take(self, module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        if self.read is None:
            return None
        self.length = args[0].shape[1]
        return args[0].index_select(1, self.read), *args[1:]

    def put(self, module: nn.Module, args: tuple[torch.Tensor, ...], out: torch.Tensor) -> torch.Tensor | None:
        """Back in place among T positions, zeros where nobody looks."""
        if self.read is None:
            return None
        return out.new_zeros(1, self.length, out.shape[-1]).index_copy(1, self.read, out)


def compute_only_what_is_read(model: Any) -> bool:
    """Let a packed model take `read`, int64 (R,), different positions whose last hidden states are wanted; the others
    come out meaningless. False (and nothing changed) where the model has no such parts or a trial comes out otherwise.
    """
    layer = decoder_layers(getattr(model, model.base_model_prefix))[-1:]
    parts = [module for module in map(_part, layer * len(NAMES), NAMES) if module is not None]
    if not parts:
        return False
    if any(isinstance(getattr(hook, "__self__", None), _Reader) for hook in parts[0]._forward_pre_hooks.values()):
        return True
    whole = hidden_packed(model)
    reader = _Reader()
    hooks = [layer[0].register_forward_pre_hook(reader.begin, with_kwargs=True)]
    for part in parts:
        hooks += [part.register_forward_pre_hook(reader.take), part.register_forward_hook(reader.put)]
    read = torch.tensor(TRIED, device=model.device)
    try:
        same = torch.allclose(hidden_packed(model, read=read)[read], whole[read], rtol=1e-4, atol=1e-5)
    except (AttributeError, TypeError, IndexError, RuntimeError):  # a part that is called or answers in another way
        same = False
    if not same:
        for hook in hooks:
            hook.remove()
    return same


NAMES = ("self_attn.o_proj", "mlp")


def _part(layer: nn.Module, name: str) -> nn.Module | None:
    try:
        return layer.get_submodule(name)
    except AttributeError:
        return None
