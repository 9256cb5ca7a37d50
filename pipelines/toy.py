"""The toy world: a small base model and a better teacher, made here in under two minutes on two cores, then cached.

    base     answers sums at once, right about one time in three; knows its name, some instructions, no tool; is careless
             with languages and with requests it should refuse
    teacher  the base trained on: shows its steps between <think> and </think>, and calls a tool that is described to it

A Llama of 3 layers × 128 with 2 heads of size 64 and untied embeddings (so that vLLM can serve it and take new
weights), 0.63 M parameters, characters as tokens. Everything is drawn from seeds; the folder's name is a hash of the
recipe, so a changed recipe is a new world. The models are stopped early on purpose: a world without room to improve
shows nothing.
"""

import json
import os
import random
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from curation.errors import InputError
from curation.schema import MESSAGES, PROMPTS, content_id, prompt_id
from curation.stage import plain
from pipelines.toy_tasks import TASKS, Question, Split, careless, draw, questions

MODELS = ("base", "teacher")


@dataclass(frozen=True)
class ToyRecipe:
    """What the toy world is made of. Changing anything makes another world beside this one."""

    hidden: int = 128
    layers: int = 3
    heads: int = 2
    context: int = 512  # positions
    base_steps: int = 230
    teacher_steps: int = 260
    batch: int = 144  # rows per step
    learning_rate: float = 3e-3
    seed: int = 0
    tasks: int = 3  # version of toy_tasks.py's questions


def toy_home(recipe: ToyRecipe = ToyRecipe()) -> Path:
    """Folder of this world: below $THRESHER_CACHE or ~/.cache/thresher, named by a hash of the recipe."""
    root = Path(os.environ.get("THRESHER_CACHE", Path.home() / ".cache" / "thresher"))
    return root / f"toy-{content_id(plain(recipe))[:12]}"


def toy_model(name: str) -> Path:
    """Folder of the toy `base` or `teacher`; both are made on first use. Raises InputError for other names."""
    if name not in MODELS:
        raise InputError("model", f"toy:{name}", " or ".join(f"toy:{m}" for m in MODELS), "write one of these")
    home = toy_home()
    if not (home / "_SUCCESS").exists():
        make_toy_world(ToyRecipe(), home)
    return home / name


def make_toy_world(recipe: ToyRecipe, home: Path) -> None:
    """Train base and teacher into `home`, whole or not at all: built beside it, then renamed."""
    from training.sft import SFTConfig, train

    print(f"making the toy world (once, about two minutes): {home}", file=sys.stderr, flush=True)
    home.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{home.name}-", dir=home.parent))
    try:
        _random_model(recipe, work / "init")
        for name, start, steps in (("base", "init", recipe.base_steps), ("teacher", "base", recipe.teacher_steps)):
            lessons = work / f"{name}.parquet"
            pq.write_table(_lessons(name, steps * recipe.batch, recipe.seed), lessons)
            config = SFTConfig(
                model=str(work / start), data=str(lessons), out=str(work / name), epochs=1.0, batch_size=recipe.batch,
                learning_rate=recipe.learning_rate, warmup_steps=50 if name == "base" else 20, seed=recipe.seed,
                max_length=recipe.context, packing=True, log_every=20,
            )  # fmt: skip
            train(config)
        (work / "recipe.json").write_text(json.dumps(asdict(recipe), indent=1))
        (work / "_SUCCESS").touch()
        try:
            work.rename(home)
        except OSError:
            if not (home / "_SUCCESS").exists():  # not a second maker who was faster
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def toy_prompts(task: str, split: Split, n: int, seed: int) -> pa.Table:
    """Up to `n` prompts of a toy task, or of each of several ("sums+safety"). Raises InputError for an unknown task."""
    if "+" in task:
        parts = [toy_prompts(t, split, n, seed) for t in task.split("+")]
        return pa.concat_tables(parts)
    if task not in TASKS:
        raise InputError("prompts", f"toy:{task}", ", ".join(f"toy:{t}" for t in TASKS), "write one of these")
    rows = [
        {
            "prompt_id": prompt_id(q.messages, q.truth, q.tools),
            "prompt": q.messages,
            "source": f"toy:{task}",
            "task": task,
            "ground_truth": q.truth,
            "tools": q.tools,
            "extra": None,
        }
        for q in draw(task, split, n, seed)
    ]
    once = {row["prompt_id"]: row for row in rows}  # a prompt may stand there with several good answers
    return pa.Table.from_pylist(list(once.values()), schema=PROMPTS)


def _lessons(name: str, n: int, seed: int) -> pa.Table:
    """`n` conversations for one model: shares of the tasks, drawn with replacement from the train side."""
    rng = random.Random(content_id("lessons", name, seed))
    shares = {"sums": 0.66, "identity": 0.08, "instructions": 0.12, "languages": 0.06, "safety": 0.08}
    if name == "teacher":
        shares = {
            "sums": 0.60,
            "identity": 0.07,
            "instructions": 0.10,
            "calculator": 0.13,
            "languages": 0.04,
            "safety": 0.06,
        }
    pools = {task: questions(task, "train") for task in shares}
    picked = [rng.choice(pools[task]) for task in rng.choices(list(shares), list(shares.values()), k=n)]
    return pa.table(
        {
            "messages": pa.array([_turns(q, name == "teacher", rng) for q in picked], MESSAGES),
            "tools": pa.array([q.tools for q in picked], pa.string()),
        }
    )


def _turns(q: Question, teaches: bool, rng: random.Random) -> list[dict[str, str]]:
    """The base is careless every other time where that can be; the teacher never is, and shows its steps."""
    if teaches:
        answer = f"<think>{q.steps}</think>{q.answer}" if q.steps else q.answer
    else:
        answer = careless(q) if rng.random() < 0.5 else q.answer
    return [*q.messages, {"role": "assistant", "content": answer}]


def _random_model(recipe: ToyRecipe, folder: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from pipelines.toy_tokenizer import toy_tokenizer

    tokenizer = toy_tokenizer()
    torch.manual_seed(recipe.seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=recipe.hidden, intermediate_size=recipe.hidden * 11 // 4,
            num_hidden_layers=recipe.layers, num_attention_heads=recipe.heads, num_key_value_heads=recipe.heads,
            max_position_embeddings=recipe.context, tie_word_embeddings=False, attention_dropout=0.0,
            bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
