"""The `thresher` command. Exit codes: 0 done; 1 a gate said no; 2 wrong use or bad input; 130 interrupted, resumable.

Nothing heavy is imported until a command is chosen, so that `thresher --help` answers at once.
"""

import dataclasses
import importlib
import os
import sys
from collections.abc import Callable, Sequence

from curation.errors import InputError, ThresherError
from pipelines.config import OneLineParser, add_settings, settings_from

COMMANDS = {
    "demo": "the whole path on built-in toy models, CPU, minutes; ends in a table and a plot",
    "run": "run a recipe: prompts in, curated shards out",
    "train": "train on shards: thresher train sft|reward|dpo --model M --data SHARDS --out DIR",
    "eval": "accuracy, pass@k and majority vote of a model on prompts with a truth",
    "audit": "what pairs would teach besides what they are meant to: shortcut words, length, whitespace",
    "repair": "mend audited pairs in one of seven ways, and prove it",
    "label": "pick the better of two answers in the browser; export the picks as pairs",
    "export": "shards as TRL, verl, OpenRLHF, LLaMA-Factory or axolotl want them",
    "show": "what is in a shard set, run or data file: schema, counts, drops, sample rows",
    "trace": "where a row or a checkpoint comes from",
}
TRAINERS = {
    "sft": ("training.sft", "SFTConfig"), "reward": ("training.reward", "RewardConfig"),
    "dpo": ("training.dpo", "DPOConfig"),
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; errors a user can meet end as one line on stderr."""
    words = list(sys.argv[1:] if argv is None else argv)
    # Progress and errors are ours; the libraries' own chatter (telemetry, advice) would bury them.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        return _dispatch(words)
    except ThresherError as e:
        print(f"thresher: {e}", file=sys.stderr)
        return e.exit_code
    except KeyboardInterrupt:
        print("thresher: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output left, as in `thresher show … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _dispatch(words: list[str]) -> int:
    parser = OneLineParser(prog="thresher", description="Curation pipeline and thin trainers for LLM post-training.")
    parser.epilog = "commands:\n" + "\n".join(f"  {name:6} {what}" for name, what in COMMANDS.items())
    parser.add_argument("--version", action="store_true", help="print the version and leave")
    parser.add_argument("command", nargs="?", choices=COMMANDS, metavar="COMMAND", help="one of those below")
    if words and not words[0].startswith("-"):
        command = parser.parse_args(words[:1]).command
        return HANDLERS[command](words[1:])
    if parser.parse_args(words).version:
        from importlib.metadata import version

        print(f"thresher {version('thresher')}")
        return 0
    parser.print_help()
    return 0


def _demo(words: list[str]) -> int:
    from pipelines.demo import DemoSettings, demo

    parser = OneLineParser(prog="thresher demo", description=COMMANDS["demo"])
    add_settings(parser, DemoSettings)
    return demo(settings_from(DemoSettings, parser.parse_args(words)))


def _run(words: list[str]) -> int:
    from pipelines.run import run_command

    return run_command(words)


def _train(words: list[str]) -> int:
    if not words or words[0] not in TRAINERS:
        listed = ", ".join(TRAINERS)
        if words in (["--help"], ["-h"]):
            print(f"usage: thresher train {{{listed}}} --model M --data SHARDS --out DIR [settings]")
            return 0
        raise InputError(
            "thresher train", repr(words[0]) if words else "no trainer", listed, "see `thresher train sft --help`"
        )
    module, name = TRAINERS[words[0]]
    trainer = importlib.import_module(module)
    config = getattr(trainer, name)
    parser = OneLineParser(prog=f"thresher train {words[0]}", description=(trainer.__doc__ or "").split("\n")[0])
    add_settings(parser, config)
    given = settings_from(config, parser.parse_args(words[1:]))
    from pipelines.models import model_path

    result = trainer.train(dataclasses.replace(given, model=model_path(given.model)))
    print(f"trained  {result.checkpoint}")
    return 0


def _eval(words: list[str]) -> int:
    from pipelines.evaluate import EvalConfig, evaluate, report

    parser = OneLineParser(prog="thresher eval", description=COMMANDS["eval"])
    add_settings(parser, EvalConfig)
    print(report(evaluate(settings_from(EvalConfig, parser.parse_args(words)))))
    return 0


def _show(words: list[str]) -> int:
    from curation.lineage import show

    parser = OneLineParser(prog="thresher show", description=COMMANDS["show"])
    parser.add_argument("path", metavar="SHARDS|RUN", help="a shard set, a run folder or a data file")
    print(show(parser.parse_args(words).path))
    return 0


def _trace(words: list[str]) -> int:
    from curation.lineage import trace

    parser = OneLineParser(prog="thresher trace", description=COMMANDS["trace"])
    parser.add_argument("what", metavar="CHECKPOINT|ROW_ID", help="a checkpoint folder, or (the start of) a row id")
    parser.add_argument("--run", metavar="DIR", help="the run folder to look in")
    given = parser.parse_args(words)
    print(trace(given.what, given.run))
    return 0


def _label(words: list[str]) -> int:
    from pipelines.label import label_command

    return label_command(words)


def _audit(words: list[str]) -> int:
    from pipelines.audit import audit_command

    return audit_command(words)


def _repair(words: list[str]) -> int:
    from pipelines.repair import repair_command

    return repair_command(words)


def _export(words: list[str]) -> int:
    from curation.export import WRITERS, export

    parser = OneLineParser(prog="thresher export", description=COMMANDS["export"])
    parser.add_argument("shards", metavar="SHARDS", help="a shard set, file, folder, glob or Hub id of sft or dpo rows")
    parser.add_argument("--to", required=True, choices=tuple(WRITERS), help="who shall read it")
    parser.add_argument("--out", required=True, metavar="DIR", help="where the files go")
    given = parser.parse_args(words)
    for path in export(given.shards, given.to, given.out):
        print(f"wrote  {path}")
    return 0


HANDLERS: dict[str, Callable[[list[str]], int]] = {
    "demo": _demo, "run": _run, "train": _train, "eval": _eval, "show": _show, "trace": _trace,
    "audit": _audit, "repair": _repair, "label": _label, "export": _export,
}  # fmt: skip

if __name__ == "__main__":
    sys.exit(main())
