"""The generated pages of the reference say what the code says."""

import importlib.util
import sys
from types import ModuleType

import pytest

from conftest import ROOT


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "generate_reference", ROOT / "docs" / "generate_reference.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def generated(generator: ModuleType) -> dict[str, str]:
    pages: dict[str, str] = generator.pages()
    return pages


@pytest.mark.parametrize("name", ["cli.md", "python.md", "options.md"])
def test_generated_pages_are_current(name: str, generated: dict[str, str]) -> None:
    written = (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")
    assert written == generated[name], "run: python docs/generate_reference.py"


def test_every_verb_and_its_options_are_there(generator: ModuleType, generated: dict[str, str]) -> None:
    for name, command in generator.verbs():
        section = generated["cli.md"].split(f"\n## {name}\n")[1].split("\n## ")[0]
        assert f"shelfwise {name}" in section
        for parameter in command.params:
            for option in parameter.opts:
                assert not option.startswith("-") or option in section, f"{name} {option}"


def test_every_public_name_is_there(generated: dict[str, str]) -> None:
    import shelfwise

    for name in shelfwise.__all__:
        assert f"\n## {name}\n" in generated["python.md"]


def test_every_option_has_a_meaning(generated: dict[str, str]) -> None:
    """A key whose docstring says nothing of it would have an empty last cell."""
    empty = [line for line in generated["options.md"].splitlines() if line.endswith("|  |")]
    assert not empty


def test_docstrings_are_taken_apart(generator: ModuleType) -> None:
    def example() -> None:
        """Do ``this``.

        More of it.

        Args:
            first: what
                it is: exactly.
            second, third: two.

        Returns:
            Nothing at all.
        """

    doc = generator.read_doc(example)
    assert (doc.caption, doc.body) == ("Do `this`.", "More of it.")
    assert doc.sections["Args"] == {"first": "what it is: exactly.", "second, third": "two."}
    assert doc.sections["Returns"] == {"": "Nothing at all."}
