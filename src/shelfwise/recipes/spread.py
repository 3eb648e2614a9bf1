"""Spread: from the value answered to a probability for every value.

It knows texts, tokens and shares, not who replied. Legend: v values of an attribute, S steps (tokens of a reply).

Where the server says what the other likely tokens were, the answer is followed token by token: at each step the
probability of another token goes to the values that continue so, in proportion to their shares in the
catalogue, and what the chosen token has stays with the values that are still possible. The probability of a value
is thus that of writing it, given that one of the values is written. Without tokens the value answered
gets a fixed mass. Both are mixed with the values' shares, so that no value is impossible; calibration mends the rest.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from shelfwise.models.chat import Step
from shelfwise.recipes.replies import fold

Float = npt.NDArray[np.float64]
#: Weight of the values' shares beside what the tokens say.
SHARES = 0.02
#: A label that each value is given before shares are counted.
ONE_EACH = 0.5


def shares_of(labels: npt.NDArray[np.int32], size: int) -> Float:
    """Return [v], how often each value is stated, smoothed; uniform without labels."""
    counts_v = np.bincount(labels[labels >= 0], minlength=size) + ONE_EACH
    found: Float = counts_v / counts_v.sum()
    return found


def by_mass(code: int, shares_v: Float, mass: float) -> Float:
    """Return [v]: the value answered has ``mass``, the others divide the rest by their shares."""
    if code < 0 or len(shares_v) < 2:
        return shares_v
    rest_v = shares_v.copy()
    rest_v[code] = 0
    out_v: Float = rest_v / rest_v.sum() * (1 - mass)
    out_v[code] = mass
    return out_v


def by_tokens(
    steps: Sequence[Step], span: tuple[int, int], values: Sequence[str], code: int, shares_v: Float
) -> Float | None:
    """Return [v], what a reply's tokens say of an attribute's values.

    Args:
        steps: the tokens; put together they are the reply.
        span: where the value answered stands in it.
        values: the attribute's values.
        code: of the value answered.
        shares_v: their shares.

    Returns:
        ``None`` where the tokens do not cover the span.
    """
    start, end = span
    mass_v, left, at, written = np.zeros(len(values)), 1.0, 0, ""
    folded = [value.casefold() for value in values]
    possible_v = np.ones(len(values), bool)
    for step in steps:
        begin, at = at, at + len(step.text)
        if at <= start or not possible_v.any():
            continue
        if begin > end:
            break
        skip = max(start - begin, 0)  # what of the token stands before the value
        lead, chosen = step.text[:skip], 0.0
        for token, probability in step.others.items():
            if token == step.text:
                chosen = max(chosen, probability)
            elif token.startswith(lead) and probability > 0:
                fits_v = possible_v & _fits(written + token[skip:], folded)
                if fits_v.any():
                    portion_v = np.where(fits_v, shares_v, 0)
                    mass_v += left * probability * portion_v / portion_v.sum()
        written += step.text[skip:]
        left *= chosen
        if at > end:
            break
        possible_v &= _fits(written, folded)
    if at <= end or not math.isfinite(left):
        return None
    mass_v[code] += left
    total = mass_v.sum()
    if not total > 0:
        return None
    out_v: Float = (1 - SHARES) * mass_v / total + SHARES * shares_v
    return out_v


def by_likelihood(logs_v: Float, shares_v: Float) -> Float:
    """Return [v] from the log-likelihood of every value."""
    mass_v = np.exp(logs_v - logs_v.max())
    out_v: Float = (1 - SHARES) * mass_v / mass_v.sum() + SHARES * shares_v
    return out_v


def _fits(written: str, folded: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Which values what was written can still become, or is, closed by a quotation mark."""
    inside, mark, _ = written.casefold().partition('"')
    if mark:
        return np.array([value == inside or value == fold(inside) for value in folded])
    return np.array([value.startswith(inside) for value in folded])
