"""One small dataclass of settings per command and recipe; this file turns it into flags, or reads it from a file.

    @dataclass(frozen=True)
    class Settings:
        k: int = 8  # answers per prompt

gives `--k 8` with its help text (the trailing comment, written once), its type checked, and `k: 8` in a YAML or
TOML file named by `--config`. Flags win over the file, the file over the defaults. Unknown names are errors.
"""

import argparse
import dataclasses
import difflib
import inspect
import re
import tomllib
import types
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from curation.errors import InputError

T = TypeVar("T")


class OneLineParser(argparse.ArgumentParser):
    """argparse whose complaints are one line (found, expected, remedy) and whose flags are never guessed from a prefix."""

    def __init__(self, prog: str, description: str = "") -> None:
        layout = argparse.RawDescriptionHelpFormatter
        super().__init__(prog=prog, description=description, allow_abbrev=False, formatter_class=layout)

    def error(self, message: str) -> NoReturn:
        raise InputError(self.prog, message, "the words and flags of --help", f"see `{self.prog} --help`")


def comments(cls: type) -> dict[str, str]:
    """The trailing comment of each field, from the class's own source: {"k": "answers per prompt"}."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        if dataclasses.is_dataclass(base):
            for name, text in re.findall(r"^    (\w+):[^#\n]*#\s*(.+)$", inspect.getsource(base), re.MULTILINE):
                found[name] = text.strip()
    return found


def add_settings(parser: argparse.ArgumentParser, cls: type) -> None:
    """A flag per field of `cls`. Defaults stay out of the namespace, so that a settings file can stand between."""
    hints, texts = get_type_hints(cls), comments(cls)
    group = parser.add_argument_group("settings")
    group.add_argument("--config", metavar="FILE", help="YAML or TOML file of settings; flags win over it")
    for f in dataclasses.fields(cls):
        kind, many = _kind(hints[f.name])
        default = "" if f.default in (dataclasses.MISSING, None) else f" (default: {_shown(f.default)})"
        words: dict[str, Any] = {"dest": f.name, "default": argparse.SUPPRESS}
        words["help"] = (texts.get(f.name, "") + default).replace("%", "%%")
        flag = "--" + f.name.replace("_", "-")
        if kind is bool:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, **words)
        elif get_origin(kind) is Literal:
            group.add_argument(flag, choices=get_args(kind), **words)
        else:
            words |= {"nargs": "*"} if many else {}
            group.add_argument(flag, metavar=kind.__name__.upper(), type=_parser_of(kind), **words)


def settings_from(cls: type[T], given: argparse.Namespace) -> T:
    """An instance of `cls` from parsed flags and, if named, the settings file. Raises InputError."""
    names = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    hints = get_type_hints(cls)
    values: dict[str, Any] = {}
    path = getattr(given, "config", None)
    if path:
        for name, value in read_settings(Path(path)).items():
            known = name.replace("-", "_")
            if known not in names:
                near = difflib.get_close_matches(known, names, 1)
                raise InputError(
                    path, f"unknown setting {name}", f"one of {', '.join(names)}",
                    f"did you mean {near[0]}?" if near else "remove it",
                )  # fmt: skip
            values[known] = _checked(value, hints[known], f"{path}: {name}")
    values |= {n: tuple(v) if isinstance(v, list) else v for n, v in vars(given).items() if n in names}
    missing = [
        f.name
        for f in dataclasses.fields(cls)  # type: ignore[arg-type]
        if f.name not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        flags = ", ".join("--" + m.replace("_", "-") for m in missing)
        raise InputError("command line", f"no {flags}", "a value", f"add {flags}")
    return cls(**values)


def read_settings(path: Path) -> dict[str, Any]:
    """The mapping in a YAML (safe loader) or TOML file. Raises InputError where it is none."""
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        loaded = tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text)
    except OSError as e:
        raise InputError(str(path), e.strerror or "unreadable file", "a settings file", "check the path") from e
    except (yaml.YAMLError, tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise InputError(str(path), str(e), "YAML or TOML", "mend the file") from e
    if not isinstance(loaded, dict):
        raise InputError(str(path), f"a {type(loaded).__name__}", "a mapping of settings", "write `name: value` lines")
    return {str(k): v for k, v in loaded.items()}


def _kind(hint: Any) -> tuple[Any, bool]:
    """The scalar type behind a hint, and whether several values are taken: `int | None` → (int, False)."""
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = [a for a in get_args(hint) if a is not type(None)]
    if get_origin(hint) is tuple:
        return get_args(hint)[0], True
    return hint, False


def _parser_of(kind: Any) -> Any:
    def parse(text: str) -> Any:
        try:
            return kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no {kind.__name__}") from None

    return parse


def _checked(value: Any, hint: Any, where: str) -> Any:
    """A value from a settings file, held to its field's type. Numbers may be written without a point."""
    kind, many = _kind(hint)
    optional = hint is not kind and type(None) in get_args(hint)
    if value is None and optional:
        return None
    if many:
        return tuple(_checked(v, kind, where) for v in (value if isinstance(value, list) else [value]))
    if get_origin(kind) is Literal:
        ok = value in get_args(kind)
    else:
        ok = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value, ok = float(value), True
        if kind is Path and isinstance(value, str):
            value, ok = Path(value), True
    if not ok:
        wanted = " or ".join(map(str, get_args(kind))) if get_origin(kind) is Literal else kind.__name__
        raise InputError(where, f"{value!r} ({type(value).__name__})", wanted, "write a value of that type")
    return value


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
