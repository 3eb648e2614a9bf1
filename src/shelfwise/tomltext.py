"""TOML text: nested tables written as TOML, and ``key=value`` overrides of them.

It does not know which options there are.
"""

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shelfwise.errors import ConfigError
from shelfwise.registry import REGISTRIES


def override(table: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Apply ``a.b.c=value`` overrides to a table, in place, and return it.

    Raises:
        ConfigError: one without ``=``, or a path through something that is not a table.
    """
    for text in overrides:
        key, sign, raw = text.partition("=")
        if not sign or not key.strip():
            raise ConfigError(f"an override is key=value, not {text!r}")
        *parents, last = key.strip().split(".")
        at: Any = table
        for parent in parents:
            at = at[position(at, parent, key)] if isinstance(at, list) else at.setdefault(parent, {})
            if isinstance(at, str) and parent in ("backbone", "heads", "loss", "choice_loss"):
                raise ConfigError(
                    f"{key}: {parent} is the name {at!r}; give it as a table to set its options"
                )
            if not isinstance(at, dict | list):
                raise ConfigError(f"{key}: {parent} is not a table")
        at[position(at, last, key) if isinstance(at, list) else last] = _literal(raw)
    return table


def position(items: list[Any], part: str, key: str) -> int:
    """Return a position in a list of tables, such as the 1 of ``recipe.phases.1.lr``."""
    if not part.isdecimal() or int(part) >= len(items):
        raise ConfigError(f"{key}: {part!r} is no position in a list of {len(items)}, counted from 0")
    return int(part)


def _literal(raw: str) -> Any:
    try:
        return tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        return raw


def to_toml(table: Mapping[str, Any]) -> str:
    """Write nested tables as TOML: plain keys first, then a ``[table]`` or ``[[table]]`` for each nested one."""
    lines: list[str] = []
    _write_table(table, "", lines)
    return "\n".join(lines).strip() + "\n"


def _write_table(table: Mapping[str, Any], prefix: str, lines: list[str]) -> None:
    nested = {key: value for key, value in table.items() if _is_nested(key, value)}
    for key, value in table.items():
        if key not in nested and value is not None:
            lines.append(f"{_key(key)} = {_value(value)}")
    for key, value in nested.items():
        if not isinstance(value, Mapping):
            for item in value:
                lines.extend(["", f"[[{prefix}{_key(key)}]]"])
                _write_table(item, f"{prefix}{_key(key)}.", lines)
        elif value or prefix == "":
            lines.extend(["", f"[{prefix}{_key(key)}]"])
            _write_table(value, f"{prefix}{_key(key)}.", lines)


def _is_nested(key: str, value: Any) -> bool:
    """Whether a value is written as tables of its own: a table, or a list of tables."""
    if isinstance(value, Mapping):
        return not _inline(key)
    listed = isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 0
    return listed and all(isinstance(item, Mapping) for item in value)


def _inline(key: str) -> bool:
    """Specs and rates read best on one line."""
    return key == "lr" or key.endswith("loss") or (key in REGISTRIES and key != "recipe")


def _key(key: str) -> str:
    plain = key.replace("-", "_").isidentifier() and key.isascii()
    return key if plain else _text(key)


def _text(text: str) -> str:
    """A basic TOML string: as in JSON, but DEL is escaped too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str | Path):
        return _text(str(value))
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items() if v is not None) + " }"
    if isinstance(value, Sequence):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    raise ConfigError(f"cannot be written as TOML: {value!r}")
