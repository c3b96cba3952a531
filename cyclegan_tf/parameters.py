"""What a user hands over, on a command line, through papermill or in a call → values to use."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from . import InputError


def parse(
    name: str,
    value: Any,
    kind: str,
    choices: Sequence[str] = (),
    low: float | None = None,
    high: float = math.inf,
) -> Any:
    """The value of a parameter, of a kind in KINDS, which may be given as text.

    `papermill -p` hands over numbers, True, False and None as such and all else as text, lists and
    mappings too; a command line hands over text alone. Raises InputError for a value of another
    kind, not among the choices, or not from `low` to `high`.
    """
    expected, convert = KINDS[kind]
    if choices:
        expected = " or ".join(choice or "nothing" for choice in choices)
    elif low is not None:
        expected += f" of at least {low}" + (f" and at most {high}" if high < math.inf else "")
    try:
        parsed = convert(value)
        if (choices and parsed not in choices) or (low is not None and not low <= parsed <= high):
            raise ValueError
    except (ValueError, TypeError, OverflowError, KeyError, yaml.YAMLError):
        raise InputError(f"Parameter {name} cannot be {value!r}: expected {expected}.") from None
    return parsed


def user_path(text: str | Path) -> Path:
    """A path as a user writes it: `~` is the home folder. Raises InputError for an unknown one.

    Also for an empty text, which a shell gives for a variable that is not set: it does not mean
    this folder.
    """
    if not str(text):
        raise InputError("A path is empty: expected a file or a folder.")
    try:
        return Path(str(text)).expanduser()
    except RuntimeError:
        raise InputError(f"{text} names the home of nobody: expected ~ or ~ and a user.") from None


def _number(value: Any) -> float:
    number = float(value)
    if isinstance(value, bool) or not math.isfinite(number):
        raise ValueError
    return number


def _whole(value: Any) -> int:
    if _number(value) != int(_number(value)):
        raise ValueError
    return int(_number(value))


def _text(value: Any) -> str:
    """A list, as YAML has it, is its items with commas between them, and None is nothing."""
    items = value if isinstance(value, (list, tuple)) else [value]
    return ",".join(str(item) for item in items if item is not None)


def _epochs(value: Any) -> tuple[int, ...]:
    numbers = value.split(",") if isinstance(value, str) else value
    epochs = tuple(sorted({_whole(number) for number in numbers}))
    if epochs and epochs[0] < 0:
        raise ValueError
    return epochs


def _settings(value: Any) -> dict[str, Any]:
    # Of YAML only the form is read: what 2 or 2026-11-27 means is a matter of the parameter.
    settings = yaml.load(value, yaml.BaseLoader) if isinstance(value, str) else value
    if not isinstance(settings or {}, dict):
        raise ValueError
    return {str(key): own for key, own in (settings or {}).items()}  # `on` is no text


def _folders(value: Any) -> list[list[str]]:
    """The folders of each source; those of a single source may be given without the outer list."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = yaml.load(value, yaml.BaseLoader)
    folders = [value] if isinstance(value, (str, int, Path)) else value or []
    if any(isinstance(folder, list) for folder in folders):  # of several sources
        return [folders for folder in folders for folders in _folders(folder)]
    return [[str(user_path(folder)) for folder in folders]] if folders else []


KINDS = {
    "int": ("a whole number", _whole),
    "float": ("a number", _number),
    "bool": ("true or false", lambda value: {"true": True, "false": False}[str(value).lower()]),
    "str": ("text", _text),
    "tuple[int, ...]": ("epoch numbers such as 0,1,100", _epochs),
    "settings": ("names and values such as {epochs: 20, flip: true}", _settings),
    "folders": ("a folder, or several such as [one, two] or [[one], [two]]", _folders),
}
