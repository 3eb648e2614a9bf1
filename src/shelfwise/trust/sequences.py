"""Word sequences of a table's texts that foretell a value: phrases that no list of synonyms has.

It counts; what a word means it does not know. A sequence is taken where even the lower bound of its precision
is high and far above the value's own share, near-duplicate groups counted as one.
Legend: D texts, A attributes, V values, F folds (the last column: all), K distinct sequences, E (text, sequence).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from shelfwise.trust.lexicon import Phrase
from shelfwise.trust.wording import PLAIN, Words

#: Words in a sequence, groups that must say it, its least precision at ``Z`` standard errors (many are tried),
#: and how many times fewer errors than the value's share alone would make.
LONGEST, LEAST_GROUPS, LEAST_PRECISION, Z, TIMES = 3, 12, 0.85, 2.6, 4.0
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def learnt_phrases(
    words: Sequence[Words],
    labels_DA: npt.NDArray[np.int32],
    weight_D: Floats,
    fold_D: Ints,
    named: Sequence[Phrase],
) -> list[tuple[Phrase, Bools]]:
    """Return phrases that foretell a value, each with the folds (bool [F]) on whose other folds it does.

    Args:
        words: of each text.
        labels_DA: stated codes of each text's product, -1 for none.
        weight_D: of each text; 1 over the size of its group.
        fold_D: of each text.
        named: phrases that are known already.
    """
    if not len(words) or not labels_DA.shape[1]:
        return []
    folds = int(fold_D.max()) + 1 if len(fold_D) else 1
    folds = max(folds, 5)
    sequences, text_E, sequence_E = _sequences(words)
    by_claim: dict[tuple[int, int], set[tuple[str, ...]]] = {}
    for phrase in named:
        by_claim.setdefault((phrase.attribute, phrase.code), set()).add(phrase.words)
    found = []
    for attribute in range(labels_DA.shape[1]):
        label_E = labels_DA[text_E, attribute].astype(np.int64)
        known = label_E >= 0
        if len(np.unique(label_E[known])) < 2:
            continue
        value_K, accepted_KF = _accepted(
            sequence_E[known],
            label_E[known],
            weight_D[text_E[known]],
            fold_D[text_E[known]],
            len(sequences),
            folds,
        )
        taken: dict[int, set[tuple[str, ...]]] = {}
        candidates = np.flatnonzero(accepted_KF.any(axis=1)).tolist()
        for k in sorted(candidates, key=lambda k: (len(sequences[k]), sequences[k])):
            code, sequence = int(value_K[k]), sequences[k]
            shorter = taken.setdefault(code, set(by_claim.get((attribute, code), ())))
            if any(part in shorter for part in _parts(sequence)):
                continue
            if accepted_KF[k].all():
                shorter.add(sequence)
            found.append((Phrase(attribute, code, sequence, "learnt"), accepted_KF[k]))
    return found


def _parts(sequence: tuple[str, ...]) -> list[tuple[str, ...]]:
    n = len(sequence)
    return [sequence[a:b] for a in range(n) for b in range(a + 1, n + 1)]


def _sequences(words: Sequence[Words]) -> tuple[list[tuple[str, ...]], Ints, Ints]:
    """Return the frequent sequences of plain words, and which text says which."""
    number: dict[str, int] = {}
    ids: list[int] = []
    text: list[int] = []
    for d, entry in enumerate(words):
        for token, state in zip(entry.tokens, entry.states, strict=True):
            ids.append(number.setdefault(token, len(number)) if state == PLAIN else -1)
            text.append(d)
        ids.append(-1)
        text.append(d)
    token_T, text_T = np.array(ids, np.int64), np.array(text, np.int64)
    names = list(number)
    sequences: list[tuple[str, ...]] = []
    texts, found = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for length in range(1, LONGEST + 1):
        count = len(token_T) - length + 1
        if count <= 0:
            break
        key, whole = np.zeros(count, np.int64), np.ones(count, bool)
        for offset in range(length):
            part = token_T[offset : offset + count]
            key, whole = key * len(names) + part, whole & (part >= 0)
        pair = np.unique(np.stack([key[whole], text_T[:count][whole]]), axis=1)
        values, inverse, counts = np.unique(pair[0], return_inverse=True, return_counts=True)
        frequent = counts >= LEAST_GROUPS
        place = np.cumsum(frequent) - 1 + len(sequences)
        kept = frequent[inverse]
        found.append(place[inverse[kept]])
        texts.append(pair[1][kept])
        for value in values[frequent].tolist():
            parts = []
            for _ in range(length):
                value, part = divmod(value, len(names))
                parts.append(names[part])
            sequences.append(tuple(reversed(parts)))
    return sequences, np.concatenate(texts), np.concatenate(found)


def _accepted(
    sequence_E: Ints, label_E: Ints, weight_E: Floats, fold_E: Ints, count: int, folds: int
) -> tuple[Ints, Bools]:
    """Return int64 [K], the value each sequence foretells, and bool [K, F], on which folds' others it does."""
    values = int(label_E.max()) + 1
    cell = (sequence_E * values + label_E) * folds + fold_E
    right_KVF = np.bincount(cell, weight_E, count * values * folds).reshape(count, values, folds)
    right_KVF = right_KVF.sum(axis=2, keepdims=True) - np.concatenate(
        [right_KVF, np.zeros((count, values, 1))], axis=2
    )
    total_KF = right_KVF.sum(axis=1)
    value_K = right_KVF[:, :, -1].argmax(axis=1)
    best_KF = np.take_along_axis(right_KVF, value_K[:, None, None], axis=1)[:, 0]
    share_V = np.bincount(label_E, weight_E, values)
    share_V = share_V / share_V.sum()
    low_KF = wilson_low(best_KF, total_KF, Z)
    errors = np.minimum(1 - LEAST_PRECISION, (1 - share_V[value_K, None]) / TIMES)
    return value_K, (total_KF >= LEAST_GROUPS) & (1 - low_KF <= errors)


def wilson_low(right: npt.ArrayLike, total: npt.ArrayLike, z: float) -> Floats:
    """Return the lower end of Wilson's score interval (1927) of shares; 0 where there is nothing."""
    n = np.asarray(total, np.float64)
    r = np.asarray(right, np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = r / n
        middle, spread = share + z * z / (2 * n), z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
        low = (middle - spread) / (1 + z * z / n)
    return np.where(n > 0, np.maximum(low, 0), 0.0)
