"""What a recipe file is, and how one is found.

A recipe is a Python file with a frozen dataclass `Settings` and a function `pipelines(settings)` that returns
named lists of stages; each list becomes a published shard set of that name. Shipped ones are named (`best_of_k`);
your own is given by path (`my_recipe.py`).
"""

import difflib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from curation.errors import InputError
from curation.stage import Pipeline

TOY = {  # shipped recipes and the toy prompts they run on where none are given
    "distill": "sums", "best_of_k": "sums", "reasoning": "sums", "tool_use": "calculator", "on_policy_dpo": "sums",
    "correction_dpo": "sums", "identity": "identity+sums+instructions+languages+safety", "multilingual": "languages",
    "instruction_following": "instructions", "safety": "safety",
}  # fmt: skip
SHIPPED = tuple(TOY)


class Recipe(NamedTuple):
    """A loaded recipe: its name, first docstring line, settings class and function."""

    name: str
    about: str
    settings: type
    pipelines: Callable[[Any], Mapping[str, Pipeline]]


def load_recipe(name: str) -> Recipe:
    """The shipped recipe of that name, or the one in that file. Raises InputError."""
    if name in SHIPPED:
        module = importlib.import_module(f"pipelines.{name}")
    elif name.endswith(".py"):
        path = Path(name)
        spec = importlib.util.spec_from_file_location(f"recipe_{path.stem}", path)
        if spec is None or spec.loader is None or not path.is_file():
            raise InputError(name, "no such file", "a Python file with Settings and pipelines()", "check the path")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # where dataclasses and help texts look for its source
        spec.loader.exec_module(module)
    else:
        near = difflib.get_close_matches(name, SHIPPED, 1)
        raise InputError(
            "recipe", name, f"one of {', '.join(SHIPPED)}, or the path of a recipe file",
            f"did you mean {near[0]}?" if near else "see `thresher run --help`",
        )  # fmt: skip
    for needed in ("Settings", "pipelines"):
        if not hasattr(module, needed):
            raise InputError(name, f"no `{needed}`", "a recipe with Settings and pipelines()", f"define {needed}")
    about = (module.__doc__ or name).strip().split("\n")[0]
    return Recipe(Path(name).stem, about, module.Settings, module.pipelines)
