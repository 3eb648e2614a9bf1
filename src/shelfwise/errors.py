"""The errors Shelfwise raises, and the door to optional packages.

It knows no other module. The tree::

    ShelfwiseError
    ├── UsageError         a call or an option that cannot mean anything
    │   └── ConfigError    a run file or an override: unknown key, wrong type
    ├── TaxonomyError      an unknown category, attribute or value
    ├── CatalogError       a table that cannot be read, a column that is not there
    ├── ImageError         one picture that cannot be read; has a ``kind``
    ├── PredictionError    predictions that do not fit together or with a catalogue
    ├── BatchStopped       a batch job with more failed rows than it may have; what is done is kept
    ├── BundleError        a bundle that is missing, broken, changed, or from another format
    ├── TrainingError      a training that cannot go on, or a checkpoint that does not fit
    ├── EngineError        an inference engine that fails or disagrees with the reference
    │   └── ChatError      a model behind an endpoint that gives no reply
    ├── DeskError          a review desk that cannot be opened, or a verdict that it cannot take
    ├── ServiceError       a service that cannot be reached, or refuses; has ``status`` and ``code``
    ├── KeyRingError       a file of keys that cannot be read or written
    └── MissingExtra       an optional package that is not installed
"""

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType

IMAGE_ERROR_KINDS = (
    "missing",
    "empty",
    "not_an_image",
    "truncated",
    "too_large",
    "unsupported",
    "outside",
    "unreadable",
)


class ShelfwiseError(Exception):
    """Everything Shelfwise raises on purpose; the message is meant for the user."""


class UsageError(ShelfwiseError):
    """A call or an option that cannot mean anything."""


class ConfigError(UsageError):
    """A run file or an override that is wrong; carries all problems in one message."""


class TaxonomyError(ShelfwiseError):
    """A category, attribute or value that the taxonomy does not have."""


class CatalogError(ShelfwiseError):
    """A table that cannot be read as a catalogue."""


class ImageError(ShelfwiseError):
    """One picture that cannot be read.

    Attributes:
        kind: one of ``IMAGE_ERROR_KINDS``.
    """

    def __init__(self, kind: str, message: str) -> None:
        if kind not in IMAGE_ERROR_KINDS:
            raise ValueError(f"unknown kind of image error: {kind!r}")
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[type["ImageError"], tuple[str, str]]:
        return type(self), (self.kind, str(self))


class PredictionError(ShelfwiseError):
    """Predictions that do not fit together, or do not fit a catalogue."""


class BatchStopped(ShelfwiseError):
    """A batch job in which more rows failed than it may have; what is done is kept."""


class BundleError(ShelfwiseError):
    """A bundle that is missing, incomplete, changed since it was written, or of an unknown format."""


class TrainingError(ShelfwiseError):
    """A training that cannot go on: a loss that is not finite, or a checkpoint of another training."""


class EngineError(ShelfwiseError):
    """An inference engine that cannot run here or does not reproduce the reference."""


class ChatError(EngineError):
    """A request to a model behind an endpoint that failed for good.

    Attributes:
        hopeless: whether every other request would fail too, such as for a wrong key.
    """

    def __init__(self, message: str, *, hopeless: bool = False) -> None:
        super().__init__(message)
        self.hopeless = hopeless


class DeskError(ShelfwiseError):
    """A review desk that cannot be opened or reached, or a verdict that it cannot take."""


class ServiceError(ShelfwiseError):
    """A running service that cannot be reached, or that refuses a request.

    Attributes:
        status: of HTTP; 0 where no answer came.
        code: a short stable name, such as ``queue_full``.
        retry_after: seconds after which it asks to be tried again; ``None`` where it did not say.
    """

    def __init__(
        self, message: str, *, status: int = 0, code: str = "unreachable", retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.retry_after = status, code, retry_after


class KeyRingError(ShelfwiseError):
    """A file of keys that cannot be read or written."""


class MissingExtra(ShelfwiseError):
    """An optional package that this installation does not have."""


def require(module: str, *, extra: str) -> ModuleType:
    """Import an optional module, or say how to install it.

    Args:
        module: the dotted name to import.
        extra: the extra of this package that brings it.

    Raises:
        MissingExtra: the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingExtra(
            f"this needs the package {module.split('.')[0]!r}: pip install 'shelfwise[{extra}]'"
        ) from error


def suggest(word: str, known: Iterable[str]) -> str:
    """Return ``Did you mean 'x'?`` for the nearest known word, or an empty string.

    Nearest by Ratcliff-Obershelp similarity (``difflib``), case and outer blanks aside.
    """
    options: dict[str, str] = {}
    for option in known:
        options.setdefault(option.strip().casefold(), option)
    near = difflib.get_close_matches(word.strip().casefold(), options, n=1, cutoff=0.6)
    return f"Did you mean {options[near[0]]!r}?" if near else ""


def listing(words: Iterable[str], most: int = 12) -> str:
    """Return quoted words separated by commas, the rest counted when there are more than ``most``."""
    options = [repr(word) for word in words]
    head = ", ".join(options[:most])
    return head if len(options) <= most else f"{head} and {len(options) - most} more"
