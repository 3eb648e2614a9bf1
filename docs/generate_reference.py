"""Write the generated pages of the reference: verbs, public names, options of run files and registered names.

It does not know what any of them does: everything is read off the code, its signatures, docstrings and help texts.
``python docs/generate_reference.py`` writes the pages; a test compares them with what the code says.
"""

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

DIRECTORY = Path(__file__).resolve().parent / "reference"
SECTIONS = ("Args", "Attributes", "Returns", "Raises", "Yields")
NOTE = "<!-- Written by docs/generate_reference.py: change the code, then run it again. -->\n"


def pages() -> dict[str, str]:
    """Return the text of every generated page by its file name."""
    return {"cli.md": cli_page(), "python.md": python_page(), "options.md": options_page()}


def main() -> None:
    """Write them."""
    from shelfwise.files import write_text

    DIRECTORY.mkdir(exist_ok=True)
    for name, text in pages().items():
        write_text(DIRECTORY / name, text)
        print(f"wrote {DIRECTORY / name}")


# Docstrings -----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Doc:
    """A Google-style docstring in its parts; sections map names to texts."""

    caption: str
    body: str
    sections: Mapping[str, Mapping[str, str]]


def read_doc(thing: Any) -> Doc:
    """Take a docstring apart."""
    text = inspect.getdoc(thing) or ""
    parts = re.split(rf"^({'|'.join(SECTIONS)}):\n", text, flags=re.MULTILINE)
    caption, _, body = parts[0].partition("\n\n")
    sections = {
        name: _entries(textwrap.dedent(rest)) for name, rest in zip(parts[1::2], parts[2::2], strict=True)
    }
    return Doc(_inline(caption), _inline(body), sections)


def _entries(text: str) -> dict[str, str]:
    """``name: what it is`` with continuation lines; a section without names is one entry without a name."""
    found: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        start = re.match(r"^([\w*][\w*, ]*): ?(.*)$", line)
        if start and not line.startswith(" "):
            name = start[1]
            found[name] = start[2]
        elif line.strip():
            found[name] = f"{found.get(name, '')} {line.strip()}".strip()
    return {key: _inline(value) for key, value in found.items()}


def _inline(text: str) -> str:
    """Docstring markup as Markdown."""
    return re.sub(r"``([^`]+)``", r"`\1`", text).strip()


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines) + "\n"


# Verbs ----------------------------------------------------------------------------------------------------------------


def verbs() -> Iterator[tuple[str, Any]]:
    """Every verb with its command, in the order of ``--help``; those of a group as ``group verb``."""
    import typer

    from shelfwise.cli import app

    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        if inner is None:
            yield name, command
        else:
            yield from ((f"{name} {verb}", each) for verb, each in inner.items())


def cli_page() -> str:
    """Every verb with its arguments and options."""
    parts = [
        "# Verbs and options\n",
        NOTE,
        "What `shelfwise VERB --help` prints, in one place. What options mean together, and what verbs write, is in "
        "the [reference](../reference.md).\n",
    ]
    for name, command in verbs():
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        options = [p for p in command.params if p.param_type_name == "option"]
        usage = " ".join(["shelfwise", name, *(_metavar(p) for p in arguments), "[options]"])
        parts += [f"## {name}\n", f"```text\n{usage}\n```\n", f"{_inline(command.help or '')}\n"]
        told = [(f"`{_metavar(p)}`", "", p.help) for p in arguments if getattr(p, "help", None)]
        rows = told + [(f"`{', '.join(p.opts)}`", _default(p), p.help or "") for p in options]
        parts.append(_table(("option", "default", "meaning"), rows))
    return "\n".join(parts)


def _metavar(parameter: Any) -> str:
    shown = parameter.metavar or parameter.name.upper()
    if parameter.nargs == -1 and "..." not in shown:
        shown += "..."
    return shown if parameter.required or shown.startswith("[") else f"[{shown}]"


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    value = parameter.default
    if value is None or value is False or value == "" or callable(value):
        return ""
    return f"`{value}`"


# Public names ---------------------------------------------------------------------------------------------------------


def python_page() -> str:
    """Every public name with its signature and what its docstring says."""
    import shelfwise

    parts = [
        "# Python\n",
        NOTE,
        "Every name of `import shelfwise as sw`. What they are for: [reference](../reference.md#python).\n",
    ]
    for name in sorted(shelfwise.__all__, key=str.casefold):
        thing = getattr(shelfwise, name)
        parts.append(f"## {name}\n")
        if inspect.isclass(thing):
            parts += _class(name, thing)
        elif callable(thing) and not hasattr(type(thing), "__getattr__"):
            parts += _callable(name, thing)
        else:
            parts.append(f"{read_doc(type(thing)).caption}\n")
    return "\n".join(parts)


def _class(name: str, thing: type) -> list[str]:
    doc = read_doc(thing)
    parts = [f"{doc.caption}\n"]
    if doc.body:
        parts.append(f"{doc.body}\n")
    known = doc.sections.get("Attributes", {})
    if known:
        parts.append(_list(known) + "\n")
    for key, member in vars(thing).items():
        inner = getattr(member, "__func__", getattr(member, "fget", None) or member)
        if key.startswith("_") or not inspect.isfunction(inner) or not inspect.getdoc(inner):
            continue
        said = read_doc(inner).caption
        if isinstance(member, property):
            parts.append(f"**{name}.{key}**: {said}\n")
        else:
            parts.append(f"**{name}.{key}**`{_signature(inner)}`: {said}\n")
    return parts


def _callable(name: str, thing: Callable[..., Any]) -> list[str]:
    doc = read_doc(thing)
    parts = [f"```text\n{name}{_signature(thing)}\n```\n", f"{doc.caption}\n"]
    if doc.body:
        parts.append(f"{doc.body}\n")
    for section in ("Args", "Returns", "Raises"):
        if section in doc.sections:
            parts.append(f"*{section}*\n\n{_list(doc.sections[section])}\n")
    return parts


def _list(entries: Mapping[str, str]) -> str:
    return "\n".join(f"- `{key}`: {text}" if key else f"- {text}" for key, text in entries.items())


def _signature(thing: Callable[..., Any]) -> str:
    """Names and defaults; types are in the code and in the editor."""
    signature = inspect.signature(thing)
    bare = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for key, parameter in signature.parameters.items()
        if key not in ("self", "cls")
    ]
    return re.sub(r"<(?:object|function) [^>]*>", "...", str(inspect.Signature(bare)))


# Options and registered names -----------------------------------------------------------------------------------------


def options_page() -> str:
    """The tables of a run file and everything that is registered, each with its options and defaults."""
    from shelfwise.config import DataOptions, DecideOptions, SearchOptions, TrackOptions
    from shelfwise.registry import REGISTRIES
    from shelfwise.service.options import ServiceOptions

    parts = [
        "# Options and registered names\n",
        NOTE,
        "The keys of a [run file](../reference.md#run-file) with their defaults, and everything that it can name.\n",
    ]
    tables = (
        ("data", DataOptions),
        ("decide", DecideOptions),
        ("track", TrackOptions),
        ("search", SearchOptions),
    )
    for prefix, model in tables:
        parts += [f"## [{prefix}]\n", _options(prefix, model)]
    for kind, registry in REGISTRIES.items():
        entries = {name: registry.get(name) for name in registry}
        own = {name: entry for name, entry in entries.items() if entry.__module__.startswith("shelfwise.")}
        own.pop("toy", None)
        parts.append(f"## {kind.replace('_', ' ').capitalize()}{'' if kind.endswith('s') else 's'}\n")
        for name, entry in own.items():
            doc = read_doc(entry)
            parts.append(f"### {kind}: {name}\n\n{doc.caption}\n")
            if kind == "recipe":
                parts.append(_options("recipe", entry))
            else:
                parts.append(_keywords(registry.options(name), doc))
    parts += ["## The service\n", "Set by the options of `serve`.\n", _options("", ServiceOptions)]
    return "\n".join(part for part in parts if part)


def _keywords(parameters: Mapping[str, inspect.Parameter], doc: Doc) -> str:
    meanings = _spread(doc.sections.get("Args", {}))
    if not meanings:  # options that a docstring does not explain are explained in the reference's prose
        named = ", ".join(f"`{key}` ({_shown(p.default).strip('`')})" for key, p in parameters.items())
        return f"Options: {named}.\n" if named else ""
    rows = [(f"`{key}`", _shown(p.default), meanings.get(key, "")) for key, p in parameters.items()]
    return _table(("option", "default", "meaning"), rows) if rows else ""


def _options(prefix: str, model: Any) -> str:
    """The fields of an Options class, and under them the fields of the tables inside it."""
    meanings = _spread(read_doc(model).sections.get("Attributes", {}))
    rows = []
    for key, field in model.model_fields.items():
        if field.is_required():
            default = "required"
        else:
            default = _shown(field.get_default(call_default_factory=True))
        choices = _choices(field.annotation)
        meaning = meanings.get(key, "")
        if choices and not all(f"`{choice}`" in meaning for choice in choices):
            meaning += f" ({', '.join(f'`{choice}`' for choice in choices)})"
        rows.append((f"`{prefix}.{key}`" if prefix else f"`{key}`", default, meaning))
    return _table(("key", "default", "meaning"), rows) if rows else ""


def _spread(entries: Mapping[str, str]) -> dict[str, str]:
    """``id, category: ...`` as one entry for each."""
    return {name.strip(): text for names, text in entries.items() for name in names.split(",")}


def _choices(annotation: Any) -> tuple[str, ...]:
    if get_origin(annotation) is Literal:
        return tuple(str(choice) for choice in get_args(annotation))
    return ()


def _shown(value: Any) -> str:
    """A default as a run file writes it."""
    from shelfwise.config import Options, filled
    from shelfwise.registry import Spec

    if value is inspect.Parameter.empty:
        return "required"
    if value is None:
        return "none"
    if isinstance(value, Spec):
        value = filled(value)
        return f'`{{ name = "{value["name"]}", ... }}`' if len(value) > 1 else f"`{value['name']}`"
    if isinstance(value, Options):
        return "a table of its own"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, list | tuple):
        if any(isinstance(inner, Options | Spec) for inner in value):
            return "tables of their own"
        return "`[" + ", ".join(_shown(inner).strip("`") for inner in value) + "]`"
    if isinstance(value, str):
        return f'`"{value}"`'
    if isinstance(value, dict) and not value:
        return "none"
    return f"`{value}`"


if __name__ == "__main__":
    main()
