"""Word lists of the audit, version 1: ways of speaking that stand for one thing, in several languages.

A lexicon hits a text that holds any of its phrases, word for word, whatever their case; a phrase has at most eight tokens
(a Chinese or Japanese character is one). A language is guessed from its commonest function words: the one with most
of them in a text, two at the least.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from curation.audit import kernel, measuring
from curation.audit.codes import codes

VERSION = 1
LEXICONS: dict[str, tuple[str, ...]] = {
    "refusal": (
        "i cannot", "i can't", "i can’t", "i'm unable", "i am unable", "i won't", "i will not", "not able to", "unable to assist",
        "can't help with", "cannot help with", "can't assist", "cannot assist", "cannot fulfill", "can't fulfill",
        "not appropriate to", "against my programming", "i must decline", "i'm not comfortable", "no puedo", "lo siento pero",
        "je ne peux pas", "ich kann nicht", "non posso", "não posso", "я не могу", "我不能", "我无法", "无法提供", "不能提供",
        "できません", "お答えでき", "할 수 없습니다",
    ),
    "apology": (
        "sorry", "apologies", "i apologize", "i apologise", "apologize for", "my apologies", "lo siento", "perdón", "disculpa",
        "désolé", "je suis désolé", "entschuldigung", "tut mir leid", "mi dispiace", "desculpe", "sinto muito", "извините",
        "простите", "к сожалению", "对不起", "很抱歉", "抱歉", "申し訳", "すみません", "죄송합니다",
    ),
    "self-identification": (
        "as an ai", "as a language model", "as a large language", "i am an ai", "i'm an ai", "i'm just an ai", "language model trained",
        "ai language model", "ai assistant", "i was trained by", "my training data", "knowledge cutoff", "i don't have feelings",
        "como modelo de lenguaje", "como una ia", "en tant qu'ia", "als ki", "als ein ki", "作为一个人工智能", "作为ai", "作为人工智能",
        "人工智能助手", "语言模型", "言語モデル",
    ),
    "vendor": (
        "openai", "chatgpt", "gpt-4", "gpt-3", "gpt", "anthropic", "claude", "google", "gemini", "bard", "deepmind", "llama", "mistral",
        "mixtral", "qwen", "deepseek", "cohere", "alibaba", "microsoft", "copilot", "vicuna", "alpaca", "koala", "baidu", "ernie",
        "通义千问", "文心一言", "讯飞星火", "智谱", "open assistant", "hugging face", "athene", "nexusflow", "grok", "xai",
    ),
    "hedge": (
        "perhaps", "maybe", "might be", "could be", "may be", "it seems", "possibly", "it depends", "in general", "generally speaking",
        "it's possible", "it is possible", "to some extent", "quizás", "tal vez", "peut-être", "vielleicht", "forse", "talvez",
        "возможно", "может быть", "也许", "可能是", "或许", "おそらく", "かもしれ",
    ),
    "certainty": (
        "definitely", "certainly", "absolutely", "without a doubt", "undoubtedly", "of course", "clearly", "obviously", "no doubt",
        "por supuesto", "bien sûr", "natürlich", "certamente", "com certeza", "конечно", "当然", "毫无疑问", "もちろん", "물론",
    ),
    "disclaimer": (
        "it's important to", "it is important to", "important to note", "please note", "note that", "keep in mind", "consult a",
        "consult with a", "seek professional", "medical professional", "not legal advice", "not financial advice", "is not a substitute",
        "es importante", "il est important", "es ist wichtig", "请注意", "需要注意", "建议咨询", "ご注意くだ",
    ),
    "praise": (
        "great question", "good question", "excellent question", "interesting question", "great idea", "you're right", "you are right",
        "you're absolutely right", "absolutely right", "great choice", "good point", "great point", "what a great", "thank you for",
        "thanks for", "i appreciate", "buena pregunta", "excelente pregunta", "bonne question", "excellente question", "gute frage",
        "ottima domanda", "ótima pergunta", "好问题", "您说得对", "你说得对", "很好的问", "素晴らしい質問",
    ),
    "closing offer": (
        "hope this helps", "hope that helps", "let me know", "feel free to", "happy to help", "glad to help", "any other questions",
        "any further questions", "have any questions", "need further assistance", "anything else i", "happy to assist",
        "espero que te", "espero que esto", "n'hésitez pas", "lassen sie mich", "fammi sapere", "espero ter ajudado",
        "надеюсь это поможет", "希望这对", "希望对你", "希望对您", "如果您有任何", "如果你有任何", "お役に立て",
    ),
    "willing opener": (
        "sure", "i'd be happy", "i would be happy", "here is a", "here are some", "here's a", "certainly here", "claro aquí", "voici",
        "gerne", "当然可以", "好的", "以下是", "はい",
    ),
}  # fmt: skip
LANGUAGES: dict[str, str] = {
    "English": "the of and to is that you it for with as are this be on not have was i",
    "Spanish": "el la los las de que y en un una por con para es se no su al lo como más del",
    "French": "le la les de des et un une est que qui dans pour pas vous nous sur avec ce au du ne",
    "German": "der die das und ist ein eine zu den von mit nicht sie es auf für im ich des dem sich",
    "Italian": "il lo la gli le di che e un una è per non con si del della sono da in nel",
    "Portuguese": "o a os as de que e um uma para com não por se do da em no na mais é são",
    "Dutch": "de het een van en is dat op te in niet zijn met voor aan er ook maar om",
    "Polish": "i w nie na się z jest do to że jak o ale po co tak za od przez",
    "Turkish": "ve bir bu için de da ile çok ne olarak daha gibi en var ama o",
    "Indonesian": "yang dan di untuk dengan ini itu dari tidak dalam akan ada pada saya adalah",
    "Vietnamese": "và của là có trong không được một cho các với những này để người",
    "Russian": "и в не на что я с он как это по но они к у из за от так",
    "Ukrainian": "і в не на що я з він як це по але вони до у із за від та є",
    "Swedish": "och det att i en är som på av för med den till inte om ett var jag",
    "Chinese": "的 是 了 在 我 不 这 有 们 和 你",
    "Japanese": "の は に を が で と た し て ま",
    "Korean": "이 그 저 것 수 등 및 를 을 는 은",
    "Arabic": "في من على أن إلى هذا التي مع لا ما عن هو هذه كان",
    "Hindi": "है के में की और को से का यह नहीं एक पर",
}  # fmt: skip


class Marks(NamedTuple):
    """An open table of phrase hashes."""

    keys: np.ndarray  # uint64
    bits: np.ndarray  # uint64: which lexicons (bit 0 …); bit 63: longer phrases begin with this word
    languages: np.ndarray  # uint32: of which languages this is a function word
    begins: np.ndarray  # bool, by the low bits of a token's hash: a lexicon may hold it or begin with it


@lru_cache(maxsize=1)
def marks() -> Marks:
    """The lexicons and function words as the kernel looks them up."""
    keys, bits, languages = (np.zeros(8192, kind) for kind in (np.uint64, np.uint64, np.uint32))
    table = Marks(keys, bits, languages, np.zeros(int(measuring.BEGINNINGS) + 1, bool))
    for number, phrases in enumerate(LEXICONS.values()):
        for phrase in phrases:
            hashes = _tokens(phrase)
            if len(hashes) > measuring.MARKED:
                raise ValueError(
                    f"{phrase!r} has {len(hashes)} tokens; a lexicon's phrase has at most {measuring.MARKED}"
                )
            table.begins[hashes[0] & measuring.BEGINNINGS] = True
            if len(hashes) > 1:
                _set(table, hashes[0], measuring.PHRASE_BEGINS)
            whole = hashes[0]
            for token in hashes[1:]:
                whole = np.uint64(kernel.joined(whole, token))
            _set(table, whole, np.uint64(1) << np.uint64(number))
    for number, words in enumerate(LANGUAGES.values()):
        for word in words.split():
            slot = _set(table, _tokens(word)[0], np.uint64(0))
            table.languages[slot] |= np.uint32(1 << number)
    return table


def _set(table: Marks, key: np.uint64, bits: np.uint64) -> int:
    slot = int(kernel.look_up(table.keys, key))
    table.keys[slot] = key
    table.bits[slot] |= bits
    return slot


def _tokens(phrase: str) -> np.ndarray:
    """Hashes of a phrase's tokens, lower-cased."""
    n = len(phrase.encode())
    text = np.frombuffer(phrase.encode() + bytes(8), np.uint8)
    tokens = (
        np.zeros(n, np.int64),
        np.zeros(n, np.int64),
        np.zeros(n, np.uint8),
        np.zeros(n, np.uint64),
        np.zeros(n, np.uint64),
    )
    count = kernel.read_tokens(text, 0, n, tuple(codes()), tokens)
    return tokens[3][:count]
