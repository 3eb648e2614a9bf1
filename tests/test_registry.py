"""Registry: taken names, checked options, specs as values, and suggestions."""

import pytest

import shelfwise as sw
from shelfwise.errors import MissingExtra, UsageError, listing, require, suggest
from shelfwise.registry import REGISTRIES, Registry, Spec, register


@pytest.fixture
def things() -> Registry:
    registry = Registry("loss", loaded=True)

    def poly(logits: object, *, power: float = 2.0, names: object = None, size: int) -> tuple[object, ...]:
        return logits, power, names, size

    registry.add("poly", poly)
    return registry


def test_options_are_checked_against_the_signature(things: Registry):
    assert things.build(things.spec("poly", size=3), "x") == ("x", 2.0, None, 3)
    with pytest.raises(UsageError, match=r"no option 'powr'\. Did you mean 'power'\?"):
        things.spec("poly", size=3, powr=1)
    with pytest.raises(UsageError, match="needs the option 'size'"):
        things.spec("poly")
    with pytest.raises(UsageError, match=r"no option 'logits'"):
        things.spec("poly", size=3, logits=1)
    with pytest.raises(UsageError, match=r"no loss called 'polly'\. Did you mean 'poly'\?"):
        things.spec("polly")


def test_a_taken_name_is_an_error(things: Registry):
    with pytest.raises(UsageError, match="the loss 'poly' is registered already"):
        things.add("poly", lambda: None)
    REGISTRIES["loss"].load()
    with pytest.raises(UsageError, match="'focal' is registered already"):
        register.loss("focal")(lambda: None)
    with pytest.raises(AttributeError, match="nothing is registered as 'looss'"):
        register.looss("x")


def test_specs_are_values(things: Registry):
    first = things.spec("poly", size=3, power=2.0, names=["a", {"b": [1]}])
    second = things.spec("poly", names=["a", {"b": [1]}], size=3)
    assert first == second
    assert hash(first) == hash(second)
    assert first.table() == {"name": "poly", "size": 3, "names": ["a", {"b": [1]}]}
    assert things.build(first, 0) == (0, 2.0, ["a", {"b": [1]}], 3)
    assert things.spec("poly", size=4) != first
    assert str(things.spec("poly", size=4)) == "poly(size=4)"
    assert things.spec(**first.table()) == first


def test_public_shorthands():
    assert sw.backbone("lite0", size=192) == Spec("backbone", "lite0", (("size", 192),))
    assert sw.heads("mlp", hidden=32).kind == "heads"
    assert sw.loss("focal", gamma=1.5).options == (("gamma", 1.5),)


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("COLOUR", "Did you mean 'colour'?"),
        (" colour", "Did you mean 'colour'?"),
        ("Color", "Did you mean 'colour'?"),
        ("zzz", ""),
    ],
)
def test_suggestions(word: str, hint: str):
    assert suggest(word, ["pattern", "colour"]) == hint


def test_listing_counts_the_rest():
    assert listing("abc") == "'a', 'b', 'c'"
    assert listing("abcd", 2) == "'a', 'b' and 2 more"


def test_a_missing_extra_says_how_to_install_it():
    with pytest.raises(MissingExtra, match=r"pip install 'shelfwise\[knn\]'"):
        require("no_such_package.inner", extra="knn")
    assert require("json", extra="x").dumps([]) == "[]"
