"""Chat encoding: ids as everyone's, and text from outside never a control token."""

import pytest
from tokenizers import AddedToken

from curation.chat import control_ids, encode_chat, encode_prompts, encode_turns
from curation.errors import InputError
from pipelines.toy_tasks import CALCULATOR
from pipelines.toy_tokenizer import toy_tokenizer

TOKENIZER = toy_tokenizer()
CHAT = [{"role": "user", "content": "What is 1+2?"}, {"role": "assistant", "content": "3"}]


def bpe_tokenizer():
    """A byte-level BPE in ChatML with a BOS, as real models have."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<s>", "<|im_start|>", "<|im_end|>"],
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())  # fmt: skip
    core.train_from_iterator(["user assistant system the question answer is \n\n"] * 50, trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="<|im_end|>",
                                   additional_special_tokens=["<|im_start|>"])  # fmt: skip
    made.chat_template = (
        "<s>{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    return made


def controls(tokenizer, ids) -> int:
    return sum(i in control_ids(tokenizer) for i in ids)


@pytest.mark.parametrize("tokenizer", [TOKENIZER, bpe_tokenizer()], ids=["toy", "bpe"])
def test_ids_are_those_of_the_rendered_template(tokenizer):
    for messages in (CHAT, CHAT[:1], [*CHAT, {"role": "user", "content": " padded \n"}]):
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        assert encode_chat(tokenizer, messages) == tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("tokenizer", [TOKENIZER, bpe_tokenizer()], ids=["toy", "bpe"])
def test_no_spelling_of_a_control_token_becomes_one(tokenizer):
    marks = [t for t in tokenizer.all_special_tokens if t != tokenizer.unk_token]
    plain = controls(tokenizer, encode_chat(tokenizer, CHAT))
    forged = [*marks, "".join(marks), f"a{marks[-1]}\nb", *(m[: len(m) // 2] for m in marks), f"{marks[0]}{marks[0]}"]
    for text in forged:
        for at in (0, 1):
            messages = [dict(m) for m in CHAT]
            messages[at]["content"] = f"x {text} y"
            ids, _taught = encode_turns(tokenizer, messages)
            assert controls(tokenizer, ids) == plain, text
            assert tokenizer.decode(ids).count(text) >= 1


def test_a_special_token_nobody_named_cannot_be_spelled_either():
    """Special by its entry alone, as the header tokens of some models are: it is in no list of named special tokens."""
    tokenizer = bpe_tokenizer()
    tokenizer.add_tokens([AddedToken("<|header|>", special=True)])
    unnamed = tokenizer.convert_tokens_to_ids("<|header|>")
    assert unnamed not in tokenizer.all_special_ids
    ids = encode_chat(tokenizer, [{"role": "user", "content": "x <|header|> y"}])
    assert unnamed not in ids and "<|header|>" in tokenizer.decode(ids)


def test_a_bos_of_the_template_stands_once():
    tokenizer = bpe_tokenizer()
    assert encode_chat(tokenizer, CHAT).count(tokenizer.bos_token_id) == 1


def test_every_assistant_turn_and_its_end_is_taught_and_nothing_else():
    ids, taught = encode_turns(
        bpe_tokenizer(), [*CHAT, {"role": "user", "content": "more"}, {"role": "assistant", "content": "4"}]
    )
    kept = bpe_tokenizer().decode([i for i, t in zip(ids, taught, strict=True) if t])
    assert kept == "3<|im_end|>\n4<|im_end|>\n"


def test_a_turn_the_template_rewrites_later_is_not_taught():
    tokenizer = toy_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}<|{{ m.role }}|>{% if loop.last or m.role == 'user' %}{{ m.content }}{% else %}-{% endif %}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    ids, taught = encode_turns(tokenizer, [*CHAT, *CHAT])
    assert tokenizer.decode([i for i, t in zip(ids, taught, strict=True) if t]) == "3<|end|>"


def test_tools_reach_the_template():
    assert "calc" in TOKENIZER.decode(encode_chat(TOKENIZER, CHAT, CALCULATOR))
    with pytest.raises(InputError, match="JSON"):
        encode_chat(TOKENIZER, CHAT, "[{")


def test_one_refused_conversation_spoils_no_batch():
    tokenizer = toy_tokenizer()
    tokenizer.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}{{ messages[0].content }}"
    )
    good, bad = CHAT[:1], [{"role": "system", "content": "s"}]
    found = encode_prompts(tokenizer, [good, bad, good], [None] * 3)
    assert isinstance(found[1], str) and "no system" in found[1] and found[0] == found[2] != []


def test_a_tokenizer_without_a_template_is_one_line():
    tokenizer = toy_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(InputError, match="chat template"):
        encode_chat(tokenizer, CHAT)
