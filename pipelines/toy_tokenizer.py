"""The toy world's tokenizer: one token per printable character, plus the marks of a turn.

`<think>` and `</think>` are ordinary tokens, not control tokens: a model writes them, and so may any text.
"""

import string
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CONTROL = ("<pad>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<unk>")
TEMPLATE = (
    "{% if tools %}<|system|>Tools:{% for t in tools %} {{ t.function.name }}{% endfor %}<|end|>{% endif %}"
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def toy_tokenizer() -> "PreTrainedTokenizerFast":
    """A fast character tokenizer of about a hundred tokens with a chat template; EOS is `<|end|>`."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    characters = sorted(set(string.printable) - set("\t\r\x0b\x0c"))
    vocabulary = {token: i for i, token in enumerate((*CONTROL, "<think>", "</think>", *characters))}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"<think>|</think>|[\s\S]"), behavior="isolated")
    core.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|end|>", pad_token="<pad>", unk_token="<unk>",
        additional_special_tokens=list(CONTROL[2:6]), model_max_length=512, clean_up_tokenization_spaces=False,
    )  # fmt: skip
    tokenizer.chat_template = TEMPLATE
    return tokenizer
