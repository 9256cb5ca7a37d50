"""Settings: a dataclass is the only place where a flag is written down."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from curation.errors import InputError
from pipelines.config import OneLineParser, add_settings, comments, settings_from


@dataclass(frozen=True)
class Example:
    model: str  # where the weights are
    k: int = 8  # answers per prompt
    rate: float = 0.5  # a share, 50% say
    schedule: Literal["linear", "constant"] = "linear"  # learning rate
    packing: bool = True  # several rows in one
    seed: int | None = None  # of everything
    trackers: tuple[str, ...] = ()  # where metrics go


def parse(words: list[str]) -> Example:
    parser = OneLineParser(prog="x")
    add_settings(parser, Example)
    return settings_from(Example, parser.parse_args(words))


def test_flags_are_typed_and_defaults_hold():
    got = parse(["--model", "m", "--k", "3", "--no-packing", "--trackers", "a", "b", "--seed", "7"])
    assert got == Example("m", k=3, packing=False, trackers=("a", "b"), seed=7)
    assert parse(["--model", "m"]) == Example("m")


def test_help_text_is_the_trailing_comment(capsys):
    assert comments(Example)["k"] == "answers per prompt"
    with pytest.raises(SystemExit):
        parse(["--help"])
    shown = capsys.readouterr().out
    assert "answers per prompt (default: 8)" in shown and "50% say" in shown


@pytest.mark.parametrize(
    "suffix, text", [(".yaml", "model: m\nk: 4\nrate: 1\n"), (".toml", 'model = "m"\nk = 4\nrate = 1\n')]
)
def test_a_file_stands_between_defaults_and_flags(tmp_path: Path, suffix: str, text: str):
    file = tmp_path / f"s{suffix}"
    file.write_text(text)
    assert parse(["--config", str(file)]) == Example("m", k=4, rate=1.0)
    assert parse(["--config", str(file), "--k", "5"]).k == 5


@pytest.mark.parametrize(
    "words, named",
    [
        ([], "--model"),
        (["--model", "m", "--k", "three"], "three"),
        (["--model", "m", "--schedule", "cosinus"], "cosinus"),
        (["--model", "m", "--kk", "3"], "--kk"),
        (["--model", "m", "--config", "absent.yaml"], "absent.yaml"),
    ],
)
def test_wrong_flags_are_one_line_that_names_them(words: list[str], named: str):
    with pytest.raises(InputError) as e:
        parse(words)
    assert named in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize(
    "text, named",
    [
        ("modle: m\n", "did you mean model"),
        ("k: [1, 2]\n", "k"),
        ("- a\n", "mapping"),
        ("a: b: c", "YAML"),
        ("k: true\n", "int"),
    ],
)
def test_wrong_settings_files_are_one_line(tmp_path: Path, text: str, named: str):
    file = tmp_path / "s.yaml"
    file.write_text(text)
    with pytest.raises(InputError) as e:
        parse(["--model", "m", "--config", str(file)])
    assert named in str(e.value) and "\n" not in str(e.value)
