"""`thresher run RECIPE`: read prompts, run the recipe's pipelines, leave shards, card and manifest in the run folder."""

import sys
from collections.abc import Mapping
from pathlib import Path

from curation.errors import InputError
from curation.stage import Outcome
from pipelines.config import OneLineParser, add_settings, settings_from
from pipelines.recipes import SHIPPED, TOY, Recipe, load_recipe


def run_command(words: list[str]) -> int:
    """Parse and run one `thresher run` line."""
    if not words or words[0] in ("-h", "--help"):
        print("usage: thresher run RECIPE [--prompts P] [--out DIR] [--dry-run] [recipe settings]\n\nrecipes:")
        for name in SHIPPED:
            print(f"  {name:22} {load_recipe(name).about}")
        print("  FILE.py                your own: a file with Settings and pipelines(settings)")
        return 0 if words else 2
    recipe = load_recipe(words[0])
    given = _parser(recipe).parse_args(words[1:])
    settings: object = settings_from(recipe.settings, given)
    prompts = read_input(given.prompts, recipe, settings, given.limit, _names(given.rename))
    lists = recipe.pipelines(settings)
    out = Path(given.out or f"runs/{recipe.name}")
    from curation.runner import plan, run

    if given.dry_run:
        print(plan(lists, prompts, out, fresh=given.fresh))
        return 0
    result = run(lists, prompts, out, recipe=recipe.name, settings=settings, fresh=given.fresh)
    for name, folder in result.published.items():
        print(f"{name:8} {folder}", file=sys.stderr)
    return 0


def read_input(
    spec: str, recipe: Recipe, settings: object, limit: int | None, rename: Mapping[str, str] | None = None
) -> Outcome:
    """The run's input: prompts, or answers that are there already where the recipe's settings say `imported`."""
    from curation.correction_source import read_corrections
    from curation.source import read_candidates, read_prompts

    if spec.startswith("toy:"):
        from pipelines.toy import toy_prompts

        return Outcome(toy_prompts(spec.removeprefix("toy:"), "train", limit or 1024, seed=0))
    reader = read_prompts
    if getattr(settings, "imported", False):
        reader = read_corrections if recipe.name == "correction_dpo" else read_candidates
    read = reader(spec, limit=limit, rename=rename)
    if read.rows.num_rows == 0:
        raise InputError(spec, f"no usable row ({read.reasons()})", "at least one row", "look at the reasons")
    return read


def _names(words: list[str]) -> dict[str, str]:
    """["a=b"] → {"a": "b"}. Raises InputError."""
    pairs = [word.partition("=") for word in words]
    wrong = [word for word, (old, found, new) in zip(words, pairs, strict=True) if not (old and found and new)]
    if wrong:
        raise InputError("--rename", wrong[0], "OLD=NEW", "write e.g. --rename prompt_label=ground_truth")
    return {old: new for old, _, new in pairs}


def _parser(recipe: Recipe) -> OneLineParser:
    toy = f"toy:{TOY.get(recipe.name, 'sums')}"
    parser = OneLineParser(prog=f"thresher run {recipe.name}", description=recipe.about)
    parser.add_argument("--prompts", default=toy, metavar="P", help=f"file, folder, glob, shards or Hub id ({toy})")
    parser.add_argument("--out", metavar="DIR", help=f"run folder (default: runs/{recipe.name})")
    parser.add_argument("--limit", type=int, metavar="N", help="read the first N rows only")
    parser.add_argument("--rename", nargs="*", default=[], metavar="OLD=NEW", help="columns of P under other names")
    parser.add_argument("--runner", choices=("local",), default="local", help="where the stages run")
    parser.add_argument("--dry-run", action="store_true", help="print the plan: what is reused, what runs and why")
    parser.add_argument("--fresh", action="store_true", help="run everything again, reuse nothing")
    add_settings(parser, recipe.settings)
    return parser
