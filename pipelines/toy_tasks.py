"""The toy world's tasks: prompts with a checkable truth, and how a good answer to each looks.

    sums          What is 37+45?            82, or with steps <think>7+5=12. 3+4+1=8.</think>82
    identity      Who are you?              I'm Llama, a language model.
    instructions  Say cat 3 times.          cat cat cat
    calculator    Use the tool: 317*24?     calc(317*24)   (a call the tool answers, not the number)

Every prompt belongs to the train or the held-out side for good: the side is a hash of its text, never of its place.
"""

import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from curation.schema import Message, content_id

Split = Literal["train", "heldout"]
TASKS = ("sums", "identity", "instructions", "calculator")

WORDS = [
    "cat",
    "dog",
    "sun",
    "moon",
    "tree",
    "fish",
    "bird",
    "rock",
    "star",
    "leaf",
    "milk",
    "bread",
    "stone",
    "river",
    "cloud",
    "grain",
    "field",
    "seed",
    "rain",
    "snow",
    "fire",
    "lamp",
    "door",
    "road",
    "ship",
    "sand",
    "gold",
    "iron",
    "salt",
    "corn",
    "wheat",
    "barley",
    "straw",
    "chaff",
    "mill",
    "barn",
    "wind",
    "hill",
    "lake",
    "wolf",
]
WHO = ("Who are you?", "What is your name?", "What are you called?", "Tell me who you are.")
NAMES = ("I'm {}, a language model.", "My name is {}.", "I am {}.")
CALCULATOR = json.dumps(
    [
        {
            "type": "function",
            "function": {
                "name": "calc",
                "description": "works out a product of two numbers",
                "parameters": {"type": "object", "properties": {"expression": {"type": "string"}}},
            },
        }
    ]
)


@dataclass(frozen=True)
class Question:
    """One prompt with its truth, a plain answer and the same answer with its steps."""

    task: str
    text: str
    truth: str
    answer: str
    steps: str = ""
    tools: str | None = None

    @property
    def messages(self) -> list[Message]:
        return [{"role": "user", "content": self.text}]


def split_of(text: str) -> Split:
    """The side a prompt belongs to: one in eight is held out."""
    return "heldout" if hashlib.sha256(text.encode()).digest()[0] % 8 == 0 else "train"


def sum_question(a: int, b: int) -> Question:
    """sum_question(37, 45): steps "7+5=12. 3+4+1=8.", answer "82"."""
    ones, carry = a % 10 + b % 10, (a % 10 + b % 10) // 10
    tens = a // 10 + b // 10 + carry
    steps = f"{a % 10}+{b % 10}={ones}. {a // 10}+{b // 10}{'+1' if carry else ''}={tens}."
    return Question("sums", f"What is {a}+{b}?", str(a + b), str(a + b), steps)


def instruction_question(word: str, kind: int) -> Question:
    text, answer = (
        (f"Say {word} {kind + 2} times.", " ".join([word] * (kind + 2)))
        if kind < 3
        else (f"Write {word} in capitals.", word.upper())
        if kind == 3
        else (f"Spell {word}.", "-".join(word))
    )
    return Question("instructions", text, answer, answer)


def questions(task: str, split: Split) -> list[Question]:
    """All questions of one task on one side, in an order that does not depend on anything but their text."""
    every: Iterator[Question]
    if task == "sums":
        every = (sum_question(a, b) for a in range(10, 100) for b in range(10, 100))
    elif task == "identity":
        return [Question(task, who, "Llama", name.format("Llama")) for who in WHO for name in NAMES]
    elif task == "instructions":
        every = (instruction_question(w, kind) for w in WORDS for kind in range(5))
    elif task == "calculator":
        pairs = ((a, b) for a in range(101, 999, 7) for b in range(12, 99, 5))
        every = (
            Question(task, f"Use the tool: {a}*{b}?", f"calc({a}*{b})", f"calc({a}*{b})", tools=CALCULATOR)
            for a, b in pairs
        )
    else:
        raise ValueError(f"no toy task {task!r}; there are {', '.join(TASKS)}")
    return sorted((q for q in every if split_of(q.text) == split), key=lambda q: content_id(q.text))


def draw(task: str, split: Split, n: int, seed: int) -> list[Question]:
    """`n` different questions of a task, drawn by seed (all of them where there are fewer)."""
    pool = questions(task, split)
    return random.Random(content_id("draw", task, split, seed)).sample(pool, min(n, len(pool)))
