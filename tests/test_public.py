"""What users see is documented: public names, verbs, options and docstrings."""

import inspect
import re

import pytest
import typer.main

import shelfwise as sw
from conftest import ROOT
from shelfwise.cli import app

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.fixture(scope="module")
def documented() -> str:
    return "\n".join(page.read_text(encoding="utf-8") for page in PAGES)


def commands() -> dict[str, typer.core.TyperCommand]:
    """Every verb; those with verbs of their own as ``verb inner``."""
    found = {}
    for verb, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        found |= {f"{verb} {name}": each for name, each in inner.items()} if inner else {verb: command}
    return found


def test_public_names_are_there_and_sorted():
    assert list(sw.__all__) == sorted(sw.__all__, key=str.casefold) or list(sw.__all__) == sorted(sw.__all__)
    assert set(sw.__all__) == set(sw._HOMES)
    for name in sw.__all__:
        assert getattr(sw, name) is not None
    assert dir(sw) == sorted(sw.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Manager'"):
        sw.Manager  # noqa: B018


def test_functions_stay_functions_when_their_modules_are_imported():
    import shelfwise.evaluate
    import shelfwise.fit  # noqa: F401

    assert callable(sw.fit)
    assert callable(sw.evaluate)


@pytest.mark.parametrize("name", sw.__all__)
def test_every_public_name_is_documented(name: str, documented: str):
    assert re.search(rf"(?<![\w.])(sw\.|shelfwise\.)?{name}\b", documented), (
        f"{name} is not in README or docs"
    )


@pytest.mark.parametrize("verb", commands())
def test_every_verb_and_option_is_documented(verb: str, documented: str):
    assert re.search(rf"(shelfwise |`){verb}\b", documented), f"the verb {verb!r} is not in README or docs"
    options = [text for option in commands()[verb].params for text in option.opts if text.startswith("--")]
    lost = [text for text in options if not re.search(rf"(?<![\w-]){text}(?![\w-])", documented)]
    assert not lost, f"options of {verb!r} that are not in README or docs"


@pytest.mark.parametrize("verb", commands())
def test_every_verb_and_option_explains_itself(verb: str):
    command = commands()[verb]
    assert command.help
    for option in command.params:
        if option.opts[0].startswith("-"):
            assert getattr(option, "help", ""), f"{verb} {option.opts[0]} has no help"


@pytest.mark.parametrize("name", [n for n in sw.__all__ if n != "register"])
def test_every_public_callable_has_a_docstring(name: str):
    thing = getattr(sw, name)
    assert inspect.getdoc(thing), f"{name} has no docstring"
    if not inspect.isclass(thing):
        return
    for key, member in vars(thing).items():
        inner = getattr(member, "__func__", getattr(member, "fget", member))
        if key.startswith("_") or not inspect.isfunction(inner):
            continue
        assert inspect.getdoc(inner), f"{name}.{key} has no docstring"


@pytest.mark.parametrize("kind", ["backbone", "heads", "loss", "metric", "recipe"])
def test_everything_registered_has_a_docstring(kind: str):
    from shelfwise.registry import REGISTRIES

    assert REGISTRIES[kind].names()
    for name in REGISTRIES[kind]:
        assert inspect.getdoc(REGISTRIES[kind].get(name)), f"the {kind} {name!r} has no docstring"
