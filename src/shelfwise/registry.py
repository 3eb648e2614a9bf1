"""Registry and Spec: the named backbones, text encoders, heads, losses, metrics and recipes.

A registered thing is a callable whose positional parameters are run-time objects and whose
keyword-only parameters are its options. A ``Spec`` is the name with its options: frozen, comparable,
written to TOML as it is. Options are checked against the signature where the spec is made, so a typo
is an error before anything is loaded. This module knows none of the things that are registered.
"""

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from shelfwise.errors import UsageError, listing, suggest

T = TypeVar("T", bound=Callable[..., Any])

#: The modules that register the built-in entries of each kind; imported when the kind is first used.
HOMES: Mapping[str, tuple[str, ...]] = {
    "backbone": (
        "shelfwise.models.backbones",
        "shelfwise.models.timm_tower",
        "shelfwise.models.clip_tower",
        "shelfwise.models.transformers_tower",
        "shelfwise.models.pair",
    ),
    "text_encoder": (
        "shelfwise.models.tfidf",
        "shelfwise.models.sentence_tower",
        "shelfwise.models.clip_text_tower",
    ),
    "heads": (
        "shelfwise.models.heads",
        "shelfwise.models.attention_heads",
        "shelfwise.models.squeeze_excitation",
        "shelfwise.models.shared_heads",
    ),
    "loss": ("shelfwise.models.losses",),
    "number_loss": ("shelfwise.models.number_losses",),
    "metric": ("shelfwise.metrics",),
    "recipe": (
        "shelfwise.recipes.probe",
        "shelfwise.recipes.neighbours",
        "shelfwise.recipes.vqa",
        "shelfwise.recipes.treated",
        "shelfwise.recipes.finetune",
        "shelfwise.recipes.ensemble",
        "shelfwise.recipes.cascade",
        "shelfwise.recipes.parts",
        "shelfwise.recipes.boost",
    ),
}


@dataclass(frozen=True)
class Spec:
    """A registered name with its options.

    Attributes:
        kind: ``backbone``, ``text_encoder``, ``heads``, ``loss``, ``number_loss``, ``metric`` or ``recipe``.
        name: the registered name.
        options: option values, sorted by name; only those that are not at their default.
    """

    kind: str
    name: str
    options: tuple[tuple[str, Any], ...] = ()

    def table(self) -> dict[str, Any]:
        """Return the spec as a TOML table: ``name`` and the options."""
        return {"name": self.name, **{key: _thaw(value) for key, value in self.options}}

    def __str__(self) -> str:
        inner = ", ".join(f"{key}={value!r}" for key, value in self.options)
        return f"{self.name}({inner})" if inner else self.name


@dataclass
class Registry:
    """All the entries of one kind."""

    kind: str
    entries: dict[str, Callable[..., Any]] = field(default_factory=dict)
    loaded: bool = False

    def load(self) -> None:
        """Import the modules that hold the built-in entries, once."""
        if not self.loaded:
            self.loaded = True
            for module in HOMES[self.kind]:
                importlib.import_module(module)

    def add(self, name: str, entry: Callable[..., Any]) -> None:
        """Register ``entry`` under ``name``.

        Raises:
            UsageError: the name is taken.
        """
        if name in self.entries:
            raise UsageError(f"the {self.kind} {name!r} is registered already")
        self.entries[name] = entry

    def names(self) -> tuple[str, ...]:
        """Return all names, sorted."""
        self.load()
        return tuple(sorted(self.entries))

    def get(self, name: str) -> Callable[..., Any]:
        """Return the entry; of the built-in ones only the module called like it is imported, where there is one.

        Raises:
            UsageError: no such name; the message has the nearest one.
        """
        if name not in self.entries and not self.loaded:
            for module in HOMES[self.kind]:
                if module.endswith(f".{name}"):
                    importlib.import_module(module)
        if name not in self.entries:
            self.load()
        if name not in self.entries:
            hint = suggest(name, self.entries) or f"Known: {listing(self.names())}."
            raise UsageError(f"there is no {self.kind} called {name!r}. {hint}")
        return self.entries[name]

    def options(self, name: str) -> dict[str, inspect.Parameter]:
        """Return the keyword-only parameters of an entry: its options with their defaults."""
        signature = inspect.signature(self.get(name))
        return {
            key: parameter
            for key, parameter in signature.parameters.items()
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY
        }

    def spec(self, name: str, **options: Any) -> Spec:
        """Return the spec of a registered name, its options checked against the signature.

        An option given at its default is left out, so a spec equals the one read back from a table with
        every default written out.

        Raises:
            UsageError: an unknown name or option, or a required option that was not given.
        """
        known = self.options(name)
        for key in options:
            if key not in known:
                hint = suggest(key, known) or (f"Known: {listing(known)}." if known else "It has no options.")
                raise UsageError(f"the {self.kind} {name!r} has no option {key!r}. {hint}")
        for key, parameter in known.items():
            if parameter.default is inspect.Parameter.empty and key not in options:
                raise UsageError(f"the {self.kind} {name!r} needs the option {key!r}")
        frozen = {key: _freeze(options[key]) for key in sorted(options)}
        kept = {key: value for key, value in frozen.items() if value != _freeze(known[key].default)}
        return Spec(self.kind, name, tuple(kept.items()))

    def build(self, spec: Spec, *positional: Any) -> Any:
        """Call the entry with run-time objects and the options of the spec."""
        return self.get(spec.name)(*positional, **{key: _thaw(value) for key, value in spec.options})

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())


REGISTRIES: dict[str, Registry] = {kind: Registry(kind) for kind in HOMES}


class _Register:
    """Decorators that register: ``@register.loss("poly1")``."""

    def __getattr__(self, kind: str) -> Callable[[str], Callable[[T], T]]:
        if kind not in REGISTRIES:
            raise AttributeError(f"nothing is registered as {kind!r}: {listing(REGISTRIES)}")

        def named(name: str) -> Callable[[T], T]:
            def keep(entry: T) -> T:
                REGISTRIES[kind].add(name, entry)
                return entry

            return keep

        return named


register = _Register()


def backbone(name: str, **options: Any) -> Spec:
    """Return the spec of a backbone, its options checked: ``backbone("timm", model="resnet50")``."""
    return REGISTRIES["backbone"].spec(name, **options)


def text_encoder(name: str, **options: Any) -> Spec:
    """Return the spec of a text encoder, its options checked: ``text_encoder("sentence", model="minilm")``."""
    return REGISTRIES["text_encoder"].spec(name, **options)


def heads(name: str, **options: Any) -> Spec:
    """Return the spec of heads, its options checked."""
    return REGISTRIES["heads"].spec(name, **options)


def loss(name: str, **options: Any) -> Spec:
    """Return the spec of a loss, its options checked."""
    return REGISTRIES["loss"].spec(name, **options)


def _freeze(value: Any) -> Any:
    """Turn lists and dicts into hashable tuples."""
    if isinstance(value, Mapping):
        return ("{}", *((key, _freeze(inner)) for key, inner in sorted(value.items())))
    if isinstance(value, list | tuple):
        return tuple(_freeze(inner) for inner in value)
    return value


def _thaw(value: Any) -> Any:
    """The inverse of ``_freeze`` (tuples come back as lists)."""
    if isinstance(value, tuple):
        if value[:1] == ("{}",):
            return {key: _thaw(inner) for key, inner in value[1:]}
        return [_thaw(inner) for inner in value]
    return value
