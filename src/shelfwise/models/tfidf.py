"""TF-IDF of words and character n-grams, brought to a few dimensions by a truncated singular value decomposition.

It knows no network and needs no download: everything is learnt from the training texts (latent semantic analysis,
Deerwester et al. 1990, with the randomised decomposition of Halko et al. 2011, https://arxiv.org/abs/0909.4061).

Legend: N texts, V terms, D features, K singular vectors found.
"""

import importlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shelfwise.errors import BundleError, UsageError
from shelfwise.files import replacing
from shelfwise.models.text_encoders import Vectors, read_card, readable, write_card
from shelfwise.predictions import Machine
from shelfwise.registry import register

#: The numbers of terms, beside what is written about them.
TENSORS = "text.safetensors"
#: A number with its separators is one word; so are single letters and digits, which state sizes.
WORD = re.compile(r"\d+(?:[.,]\d+)+|\w+")
#: Singular vectors looked for beyond those kept, and passes over the texts: what the decomposition is exact by.
OVERSAMPLES, PASSES = 16, 4


@dataclass(frozen=True, eq=False)
class Terms:
    """Terms of one kind with their weights.

    Attributes:
        kind: ``words`` or ``characters``.
        grams: the shortest and the longest n of the n-grams.
        terms: the terms, sorted.
        idf: float32 [V], inverse document frequencies.
    """

    kind: str
    grams: tuple[int, int]
    terms: tuple[str, ...]
    idf: NDArray[np.float32]

    def weigh(self, texts: Sequence[str]) -> Any:
        """Return the weights of the terms in texts, a sparse matrix [N, V] of rows of length 1 or 0."""
        from scipy.sparse import csr_matrix

        if not self.terms:
            return csr_matrix((len(texts), 0), dtype=np.float32)
        columns, starts = list[int](), [0]
        for text in texts:
            known = map(self._column.get, terms_in(text, self.kind, self.grams))
            columns += [column for column in known if column is not None]
            starts.append(len(columns))
        once = np.ones(len(columns), np.float32)
        counts_NV = csr_matrix((once, columns, starts), (len(texts), len(self.terms)), np.float32)
        counts_NV.sum_duplicates()
        return self.weighted(counts_NV)

    @cached_property
    def _column(self) -> dict[str, int]:
        return {term: at for at, term in enumerate(self.terms)}

    def weighted(self, counts_NV: Any) -> Any:
        """Return counts as sublinear frequencies times inverse document frequencies, rows of length 1 or 0."""
        row = np.repeat(np.arange(counts_NV.shape[0]), np.diff(counts_NV.indptr))
        weights = (1 + np.log(counts_NV.data)) * self.idf[counts_NV.indices]
        lengths_N = np.sqrt(np.bincount(row, weights**2, minlength=counts_NV.shape[0]))
        counts_NV.data = (weights / lengths_N[row]).astype(np.float32)
        return counts_NV


def terms_in(text: str, kind: str, grams: tuple[int, int]) -> list[str]:
    """Return the terms of a text, each as often as it is there.

    Runs of words with a blank between them, or of characters inside a word that has a blank at each end; a word
    shorter than the shortest run counts once.
    """
    text, (shortest, longest) = text.lower(), grams
    if kind == "words":
        words = WORD.findall(text)
        sizes = range(shortest, min(longest, len(words)) + 1)
        return [
            " ".join(run) for size in sizes for run in zip(*(words[at:] for at in range(size)), strict=False)
        ]
    found = []
    for word in text.split():
        padded = f" {word} "
        for size in range(shortest, longest + 1):
            found += [padded[at : at + size] for at in range(max(1, len(padded) - size + 1))]
            if len(padded) <= size:
                break
    return found


def learn_terms(
    texts: Sequence[str], kind: str, grams: tuple[int, int], min_count: int, most: int
) -> tuple[Terms, Any]:
    """Return the terms that texts share, those in most texts where there are too many, and their weights [N, V]."""
    from sklearn.feature_extraction.text import CountVectorizer

    counter = CountVectorizer(analyzer=lambda text: terms_in(text, kind, grams), dtype=np.float32)
    if not any(terms_in(text, kind, grams) for text in texts):
        none = Terms(kind, grams, (), np.zeros(0, np.float32))
        return none, none.weigh(texts)
    counts_NV = counter.fit_transform(texts)
    texts_V = np.bincount(counts_NV.indices, minlength=counts_NV.shape[1])
    shared = np.flatnonzero(texts_V >= min_count)
    kept = np.sort(shared[np.argsort(-texts_V[shared], kind="stable")[:most]])
    idf_V = np.log((1 + len(texts)) / (1 + texts_V[kept])) + 1
    words = tuple(counter.get_feature_names_out()[kept].tolist())
    found = Terms(kind, grams, words, idf_V.astype(np.float32))
    return found, found.weighted(counts_NV[:, kept])


def singular_vectors(weights_NV: Any, dimension: int, seed: int) -> NDArray[np.float32]:
    """Return the first right singular vectors float32 [D, V], zeros where there are fewer.

    The vectors are rounded to float16, as they are kept; the largest entry of each is positive. The random start lies
    among the terms, so that the order of the texts changes nothing but rounding; and one thread computes, so that
    their number does not either.
    """
    from sklearn.utils.extmath import randomized_svd

    found_DV = np.zeros((dimension, weights_NV.shape[1]), np.float32)
    count = min(dimension, *weights_NV.shape)
    if not count or not weights_NV.nnz:
        return found_DV
    with importlib.import_module("threadpoolctl").threadpool_limits(1):
        _, sizes_K, vectors_KV = randomized_svd(
            weights_NV,
            count,
            n_oversamples=OVERSAMPLES,
            n_iter=PASSES,
            random_state=seed,
            transpose=False,
            flip_sign=False,
        )
    noise = sizes_K[0] * max(weights_NV.shape) * np.finfo(np.float32).eps
    vectors_KV = vectors_KV[sizes_K > noise]
    signs_K = np.sign(vectors_KV[np.arange(len(vectors_KV)), np.abs(vectors_KV).argmax(1)])
    found_DV[: len(vectors_KV)] = signs_K[:, None] * vectors_KV
    return found_DV.astype(np.float16).astype(np.float32)


@dataclass(frozen=True, eq=False)
class FittedTfidf:
    """Terms and singular vectors learnt from texts.

    Attributes:
        parts: the terms by kind.
        components: float32 [D, V], the terms of all kinds one after another.
        options: what they were learnt with.
    """

    parts: tuple[Terms, ...]
    components: NDArray[np.float32]
    options: dict[str, Any]

    @property
    def dimension(self) -> int:
        """D."""
        return len(self.components)

    def encode(self, texts: Sequence[str], machine: Machine) -> Vectors:
        """Return float32 [N, D], NaN where a text is empty; zeros where no term of it is known."""
        from scipy.sparse import hstack

        clean = readable(texts)
        weights_NV = hstack([part.weigh(clean) for part in self.parts], format="csr")
        vectors_ND: Vectors = np.asarray(weights_NV @ self.components.T, np.float32)
        vectors_ND[[not text for text in clean]] = np.nan
        return vectors_ND

    def save(self, folder: Path) -> None:
        """Write the terms as JSON and the numbers as safetensors; the same content is the same bytes."""
        from safetensors.numpy import save_file

        tensors = {f"idf.{part.kind}": part.idf for part in self.parts}
        tensors["components"] = self.components.astype(np.float16)
        with replacing(folder / TENSORS) as temporary:
            save_file(tensors, temporary)
        terms = {part.kind: list(part.terms) for part in self.parts}
        write_card(folder, {"encoder": "tfidf", "options": self.options, "terms": terms})


@dataclass(frozen=True)
class Tfidf:
    """The options of TF-IDF.

    Attributes:
        dimension: D.
        grams: the kinds of terms, with the shortest and the longest n of their n-grams.
        min_count: texts that a term is in at least.
        most: terms of a kind at most.
    """

    dimension: int
    grams: tuple[tuple[str, tuple[int, int]], ...]
    min_count: int
    most: int

    def fit(self, texts: Sequence[str], *, seed: int) -> FittedTfidf:
        """Learn terms and singular vectors; empty texts teach nothing."""
        from scipy.sparse import hstack

        clean = [text for text in readable(texts) if text]
        learnt = [learn_terms(clean, kind, grams, self.min_count, self.most) for kind, grams in self.grams]
        weights_NV = hstack([weights for _, weights in learnt], format="csr", dtype=np.float32)
        components_DV = singular_vectors(weights_NV, self.dimension, seed)
        return FittedTfidf(tuple(part for part, _ in learnt), components_DV, self._table())

    def load(self, folder: Path) -> FittedTfidf:
        """Read a fit with these options.

        Raises:
            BundleError: it is missing or broken, or has other options.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        card = read_card(folder, {"encoder": "tfidf", "options": self._table()})
        try:
            tensors = load_file(folder / TENSORS)
        except (OSError, SafetensorError) as error:
            raise BundleError(f"{folder / TENSORS}: cannot be read: {error}") from error
        lists = [_words(folder, card.get("terms"), kind) for kind, _ in self.grams]
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        expected: dict[str, tuple[int, ...]] = {
            f"idf.{kind}": (len(words),) for (kind, _), words in zip(self.grams, lists, strict=True)
        }
        expected["components"] = (self.dimension, sum(map(len, lists)))
        if shapes != expected:
            raise BundleError(f"{folder / TENSORS}: holds {shapes}, not {expected}")
        parts = tuple(
            Terms(kind, grams, words, tensors[f"idf.{kind}"])
            for (kind, grams), words in zip(self.grams, lists, strict=True)
        )
        return FittedTfidf(parts, tensors["components"].astype(np.float32), self._table())

    def _table(self) -> dict[str, Any]:
        table = {
            "dimension": self.dimension,
            "grams": {kind: list(grams) for kind, grams in self.grams},
            "min_count": self.min_count,
            "most": self.most,
        }
        return dict(json.loads(json.dumps(table)))


def _words(folder: Path, terms: Any, kind: str) -> tuple[str, ...]:
    """Return the terms of a kind as a file has them."""
    words = terms.get(kind) if isinstance(terms, dict) else None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise BundleError(f"{folder}: its {kind} are no list of texts")
    return tuple(words)


def _grams(kind: str, given: Sequence[int]) -> tuple[tuple[str, tuple[int, int]], ...]:
    if not given:
        return ()
    if len(given) != 2 or not 1 <= given[0] <= given[1]:
        raise UsageError(
            f"{kind} is the shortest and the longest n-gram, such as [1, 2], or [] for none: {given}"
        )
    return ((kind, (int(given[0]), int(given[1]))),)


@register.text_encoder("tfidf")
def tfidf(
    *,
    dimension: int = 128,
    words: Sequence[int] = (1, 2),
    characters: Sequence[int] = (4, 4),
    min_count: int = 2,
    most: int = 5_000,
) -> Tfidf:
    """Words and pieces of words, weighed by TF-IDF and brought to a few dimensions; learnt from the texts alone.

    Args:
        dimension: features of a text.
        words: shortest and longest run of words that is a term; empty for no words.
        characters: shortest and longest run of characters inside a word; empty for none.
        min_count: texts that a term is in at least; others are not learnt.
        most: terms at most, of words and of characters each; those in most texts.
    """
    for what, value in (("dimension", dimension), ("min_count", min_count), ("most", most)):
        if value < 1:
            raise UsageError(f"{what} is at least 1, not {value}")
    grams = _grams("words", words) + _grams("characters", characters)
    if not grams:
        raise UsageError("words and characters are both empty: there is nothing to count")
    return Tfidf(dimension, grams, min_count, most)
