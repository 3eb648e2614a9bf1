"""The contract of registered text encoders, checked.

It knows no recipe and how no encoder works inside. Each check raises ``AssertionError`` with a sentence that says what
was promised and what was found.

Legend: N texts, D features, T tokens, W features of a token.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from shelfwise.errors import BundleError
from shelfwise.models.text_encoders import FittedText, FrozenText, TextEncoder, Vectors, build_text_encoder
from shelfwise.predictions import Machine
from shelfwise.registry import REGISTRIES

#: What is learnt from.
TAUGHT = (
    *(
        f"{colour} {thing}, {n} g (pack of {n})"
        for n in (1, 2)
        for colour in ("Red", "Blue")
        for thing in ("cup", "tea")
    ),
    "Organic black tea, 2 x 500 g",
    "",
)
#: What is encoded: other words, repeated and empty texts, one that is too long, what no keyboard has.
ASKED = (
    "Red cup, 500 g",
    "",
    "Organic tea",
    " \t\n",
    "Red cup, 500 g",
    "organic tea and cups " * 400,
    "½ Ärmel ₹1,299/- 棉 \U0001f600 \ud83d \x00",
    "x",
    "Blue tea, 2 g (pack of 2)",
)
_EMPTY = (1, 3)


@dataclass(frozen=True, eq=False)
class _Case:
    """An encoder fitted on a few texts, and what it makes of others."""

    name: str
    encoder: TextEncoder
    fitted: FittedText
    directory: Path
    machine: Machine
    found: Vectors

    def encode(self, texts: Sequence[str], fresh: str) -> Vectors:
        """Encode with an empty cache of this name: what was computed before is not known."""
        machine = replace(self.machine, cache=self.directory / f"cache-{fresh}")
        return self.fitted.encode(texts, machine)


def check_text_encoder(name: str, directory: str | Path, **options: Any) -> None:
    """Make sure that a registered text encoder keeps the contract of every text encoder.

    A seed gives the same vectors; a row is float32, depends on its text alone, and is the same to the last bit whether
    computed or known, by itself or among others, in any order, on one thread or several; an empty text is a row
    of NaN and no other row has one; one text, none and only empty ones can be learnt from; it is saved without
    pickles, byte for byte the same twice, and loaded as it was; an incomplete or foreign folder is refused; where it is
    a network, its tower gives the vectors and one vector a token, and every parameter is in one layer group.

    Args:
        name: the registered encoder.
        directory: an empty one for caches and saved encoders.
        options: its options.

    Raises:
        AssertionError: the first promise that is not kept.
    """
    registry = REGISTRIES["text_encoder"]
    encoder = build_text_encoder(registry.spec(name, **options))
    directory = Path(directory)
    machine = Machine(cache=directory / "cache", jobs=1, device="cpu")
    fitted = encoder.fit(TAUGHT, seed=0)
    case = _Case(name, encoder, fitted, directory, machine, fitted.encode(ASKED, machine))
    _check_rows(case)
    _check_alone(case)
    _check_few(case)
    _check_saved(case)
    if isinstance(encoder, FrozenText):
        _check_tower(case, encoder)


def _same(first: Vectors, second: Vectors, what: str) -> None:
    assert first.shape == second.shape, f"{what}: {second.shape}, not {first.shape}"
    assert np.array_equal(first, second, equal_nan=True), f"{what}: vectors are not the same to the last bit"


def _check_rows(case: _Case) -> None:
    shape = (len(ASKED), case.fitted.dimension)
    assert case.found.shape == shape, f"{case.name}: vectors {case.found.shape}, not {shape}"
    assert case.found.dtype == np.float32, f"{case.name}: vectors are {case.found.dtype}, not float32"
    empty = np.isnan(case.found)
    for row, text in enumerate(ASKED):
        wanted = row in _EMPTY
        assert bool((empty[row] == wanted).all()), (
            f"{case.name}: {text[:40]!r} has the vector {case.found[row]}"
        )
    full = case.found[[row for row in range(len(ASKED)) if row not in _EMPTY]]
    assert bool(np.isfinite(full).all()), f"{case.name}: a vector is not finite"
    _same(case.found[0], case.found[4], f"{case.name}: one text twice")
    assert not np.array_equal(case.found[0], case.found[2]), f"{case.name}: two texts have one vector"
    _same(case.found[:0], case.fitted.encode((), case.machine), f"{case.name}: no texts")


def _check_alone(case: _Case) -> None:
    """Known or computed, in any order and company, on any number of threads, learnt again: the same."""
    name = case.name
    _same(case.found, case.fitted.encode(ASKED, case.machine), f"{name}: encoded a second time")
    _same(case.found, case.encode(ASKED, "again"), f"{name}: computed a second time")
    order = np.random.default_rng(1).permutation(len(ASKED))
    _same(
        case.found[order], case.encode([ASKED[at] for at in order], "shuffled"), f"{name}: in another order"
    )
    for row, text in enumerate(ASKED):
        _same(case.found[[row]], case.encode([text], f"alone-{row}"), f"{name}: {text[:40]!r} by itself")
    threads = replace(case.machine, cache=case.directory / "cache-threads", jobs=3)
    _same(case.found, case.fitted.encode(ASKED, threads), f"{name}: on three threads")
    again = case.encoder.fit(TAUGHT, seed=0)
    _same(case.found, again.encode(ASKED, case.machine), f"{name}: learnt a second time")


def _check_few(case: _Case) -> None:
    """Any texts can be learnt from; the dimension is the same."""
    for texts in ((), ("",), ("Red cup",), ("Red cup", "red cup")):
        fitted = case.encoder.fit(texts, seed=0)
        found = fitted.encode(ASKED, case.machine)
        assert fitted.dimension == case.fitted.dimension, (
            f"{case.name}: learnt from {texts}, another dimension"
        )
        assert found.shape == case.found.shape, f"{case.name}: learnt from {texts}, vectors {found.shape}"
        wrong = np.flatnonzero(np.isnan(found).any(axis=1)).tolist()
        assert wrong == list(_EMPTY), f"{case.name}: learnt from {texts}, NaN in the rows {wrong}"


def _check_saved(case: _Case) -> None:
    name, folders = case.name, [case.directory / f"saved-{at}" for at in (0, 1)]
    contents = []
    for folder in folders:
        folder.mkdir(parents=True)
        case.fitted.save(folder)
        contents.append({path.name: path.read_bytes() for path in sorted(folder.iterdir())})
    assert contents[0], f"{name}: saving writes no file"
    assert contents[0] == contents[1], f"{name}: two saves differ"
    for file, data in contents[0].items():
        pickled = data[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK")
        assert not pickled, f"{name}: {file} is a pickle or an archive"
    _same(case.found, case.encoder.load(folders[0]).encode(ASKED, case.machine), f"{name}: saved and loaded")
    for file, data in contents[0].items():
        for what, changed in (
            ("without", None),
            ("with half of", data[: len(data) // 2]),
            ("with another", b"{}"),
        ):
            path = folders[1] / file
            path.unlink() if changed is None else path.write_bytes(changed)
            _check_refused(case, folders[1], f"{name}: a folder {what} {file}")
            path.write_bytes(data)


def _check_refused(case: _Case, folder: Path, what: str) -> None:
    try:
        case.encoder.load(folder)
    except BundleError:
        return
    raise AssertionError(f"{what} is loaded")


def _check_tower(case: _Case, encoder: FrozenText) -> None:
    """The network gives the same vectors of a batch, a vector for each token, and groups its parameters."""
    import torch

    name, tower = case.name, encoder.tower
    ids_NT, mask_NT = encoder.tokens(ASKED)
    types = (str(ids_NT.dtype), str(mask_NT.dtype))
    assert types == ("int64", "bool"), f"{name}: ids and mask are {types}"
    assert ids_NT.shape == mask_NT.shape, f"{name}: ids {ids_NT.shape}, mask {mask_NT.shape}"
    assert bool(mask_NT.any(1).all()), f"{name}: a text has no token at all"
    with torch.inference_mode():
        vectors, tokens = tower(torch.from_numpy(ids_NT), torch.from_numpy(mask_NT))
    shape = (*ids_NT.shape, tower.width)
    assert tuple(tokens.shape) == shape, f"{name}: token vectors {tuple(tokens.shape)}, not {shape}"
    full = [row for row in range(len(ASKED)) if row not in _EMPTY]
    off = float(np.abs(vectors.numpy()[full] - case.found[full]).max())
    assert off < 2e-3 * max(1.0, float(np.abs(case.found[full]).max())), (
        f"{name}: the tower's vectors differ by {off:.2g}"
    )
    grouped = sorted(key for _, names in tower.layer_groups for key in names)  # type: ignore[union-attr]
    own = sorted(key for key, _ in tower.named_parameters())
    assert grouped == own, f"{name}: the layer groups do not hold every parameter once"
