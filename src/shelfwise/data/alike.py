"""Whether two small pictures are one photograph: aligned, then compared in detail, residual and tint.

It does not know files, rows or groups; it compares thumbs. Shop photos are posed alike, so outlines say
little: what tells a second copy from a second product is the detail inside, once a crop is undone.
Legend: E pairs, n side of a picture, D = 48 (side of the luma), T = 16 (side of the thumb), M measures.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

LUMA_SIDE, THUMB_SIDE = 48, 16
#: Pairs compared at once; bounds the memory.
AT_ONCE = 512
#: Largest shift, as a share of the side, and largest change of scale that a crop or a border may cause.
MOST_SHIFT, MOST_SCALE = 0.05, 0.12
#: Root mean square residual of the aligned luma, in levels of 255, above which a pair is given up.
MOST_RESIDUAL = 9.0
#: The same for the 16 x 16 luma, aligned first.
MOST_COARSE = 8.5
#: Cells at each edge left out of the comparison: a crop or border leaves them without a counterpart.
MARGIN = 3
_TO_LUMA = np.array([LUMA_SIDE / THUMB_SIDE, LUMA_SIDE / THUMB_SIDE, 1, 1], dtype=np.float32)
_GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)
#: Of the measures, by logistic regression on altered copies of 250 real photos and on 22,000 pairs of
#: different photos posed alike, from the fashion and the myntra catalogues.
WEIGHTS = np.array([-2.64, -0.73, -5.06, 2.12, -2.43, -1.03, -1.31])
BIAS = -16.09


def likeness(
    luma1_EDD: NDArray[np.uint8],
    luma2_EDD: NDArray[np.uint8],
    thumb1_ETT3: NDArray[np.uint8],
    thumb2_ETT3: NDArray[np.uint8],
) -> NDArray[np.float64]:
    """Return float64 [E], log odds that the two pictures are one photograph; -inf for the clearly unlike.

    The first picture is aligned to the second by Gauss-Newton steps on shift, scale, gain and offset
    together (Lucas & Kanade 1981), two at 16 x 16 and two at 48 x 48, then ``measures`` are weighed.
    """
    odds = np.full(len(luma1_EDD), -np.inf)
    for start in range(0, len(odds), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        thumb1, thumb2 = thumb1_ETT3[part].astype(np.float32), thumb2_ETT3[part].astype(np.float32)
        warp_E4, rms = _coarse(thumb1 @ _GREY, thumb2 @ _GREY)
        near = np.flatnonzero(rms <= MOST_COARSE)
        if not len(near):
            continue
        luma1, luma2 = (luma[part][near].astype(np.float32) for luma in (luma1_EDD, luma2_EDD))
        found, kept = measures(luma1, luma2, thumb1[near], thumb2[near], warp_E4[near])
        odds[start + near[kept]] = found @ WEIGHTS + BIAS
    return odds


def measures(
    luma1_EDD: Floats, luma2_EDD: Floats, thumb1_ETT3: Floats, thumb2_ETT3: Floats, warp_E4: Floats
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return float64 [e, M], logarithms of how far aligned pictures differ, and which e of E those are.

    Pairs with a residual over ``MOST_RESIDUAL`` are left out. The measures, small is alike: one less the
    correlation of the fine detail, and of the smoothed detail, each divided by its local contrast; root
    mean square and 70th percentile of the luma residual, in levels; the tint difference that one cell in
    ten exceeds; the overall cast; and how far the gain is from 1.
    """
    warp_E4 = warp_E4 * _TO_LUMA
    for _ in range(2):
        warp_E4 = _step(luma1_EDD, luma2_EDD, warp_E4)
    moved = _warped(luma1_EDD, warp_E4)
    gain, left = _residual(_inner(moved), _inner(luma2_EDD))
    rms = np.sqrt(np.square(left).mean(axis=1))
    kept = np.flatnonzero(rms <= MOST_RESIDUAL)
    if not len(kept):
        return np.zeros((0, len(WEIGHTS))), kept
    moved, luma2, left, rms = moved[kept], luma2_EDD[kept], left[kept], rms[kept]
    fine = _correlation(_detail(moved, 3.0), _detail(luma2, 3.0))
    smooth = _correlation(_detail(_smoothed(moved), 6.0), _detail(_smoothed(luma2), 6.0))
    most = np.partition(left, left.shape[1] * 7 // 10, axis=1)[:, left.shape[1] * 7 // 10]
    warp_e4 = warp_E4[kept] * (1 / _TO_LUMA)
    tint, cast = _tints(_warped(thumb1_ETT3[kept], warp_e4.astype(np.float32)), thumb2_ETT3[kept])
    unlike = (1.001 - fine, 1.001 - smooth, rms + 0.3, most + 0.3, tint + 0.002, cast + 0.002)
    found = [np.log(value) for value in unlike]
    found.append(np.abs(np.log(np.clip(gain[kept], 0.1, 10))))
    return np.stack(found, axis=1).astype(np.float64), kept


def _coarse(small1_ETT: Floats, small2_ETT: Floats) -> tuple[Floats, Floats]:
    """Return the warps of two steps [E, 4] and the root mean square residual they leave, in levels."""
    warp_E4 = np.zeros((len(small1_ETT), 4), dtype=np.float32)
    for _ in range(2):
        warp_E4 = _step(small1_ETT, small2_ETT, warp_E4)
    _, left = _residual(_cut(_warped(small1_ETT, warp_E4)), _cut(small2_ETT))
    return warp_E4, np.sqrt(np.square(left).mean(axis=1))


def bases(thumb_UTT3: NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """Return what ``residuals`` needs of U thumbs: [U, 6, 196] orthonormal and [U, 196] luma cells.

    The six span what gain, offset, shift and scale can do to the luma, to the first order.
    """
    luma = thumb_UTT3.astype(np.float32) @ _GREY
    parts_U6S = _basis(luma) + 1e-3 * np.sin(np.arange(6 * 196, dtype=np.float32)).reshape(6, 196)
    ortho, _ = np.linalg.qr(parts_U6S.transpose(0, 2, 1))
    return np.ascontiguousarray(ortho.transpose(0, 2, 1)), _cut(luma)


def luma_cells(thumb_ETT3: NDArray[np.uint8]) -> Floats:
    """Return float32 [E, 196], the inner luma cells of thumbs."""
    return _cut(thumb_ETT3.astype(np.float32) @ _GREY)


def residuals(basis_E6S: Floats, cells_ES: Floats) -> Floats:
    """Return float32 [E], root mean square of what a basis leaves of the other picture, in levels."""
    explained = (basis_E6S @ cells_ES[:, :, None])[..., 0]
    left = np.square(cells_ES).sum(axis=1) - np.square(explained).sum(axis=1)
    return np.asarray(np.sqrt(np.maximum(left, 0) / cells_ES.shape[1]))


def _basis(moved_Enn: Floats) -> Floats:
    """Return [E, 6, S]: picture, constant, gradients, and gradients times place, of the inner cells."""
    side = moved_Enn.shape[1]
    across, down = np.gradient(moved_Enn, axis=2), np.gradient(moved_Enn, axis=1)
    place = ((np.arange(side) - (side - 1) / 2) / ((side - 1) / 2)).astype(np.float32)
    parts = (moved_Enn, np.full_like(moved_Enn, 128), across, down, across * place, down * place[:, None])
    return np.stack([_cut(part) for part in parts], axis=1)


def _cut(picture_Enn: Floats) -> Floats:
    """Return the cells but for a sixteenth at each edge, flattened."""
    edge = picture_Enn.shape[1] // 16
    return picture_Enn[:, edge:-edge, edge:-edge].reshape(len(picture_Enn), -1)


def _step(first_Enn: Floats, second_Enn: Floats, warp_E4: Floats) -> Floats:
    """Improve warps (shift x, y in pixels, scale x, y) by one least-squares step on six unknowns."""
    side = first_Enn.shape[1]
    basis = _basis(_warped(first_Enn, warp_E4) if warp_E4.any() else first_Enn)
    square = (basis @ basis.transpose(0, 2, 1)).astype(np.float64)
    square += np.eye(6) * (1e-4 * np.einsum("eii->ei", square) + 1)[:, :, None]
    answer = np.linalg.solve(square, (basis @ _cut(second_Enn)[:, :, None]).astype(np.float64))
    change = answer[:, 2:, 0] / np.clip(answer[:, :1, 0], 0.5, 2)
    change[:, 2:] /= (side - 1) / 2
    bound = np.array([MOST_SHIFT * side, MOST_SHIFT * side, MOST_SCALE, MOST_SCALE])
    return np.asarray(np.clip(warp_E4 + change, -bound, bound), dtype=np.float32)


def _residual(one_ES: Floats, other_ES: Floats) -> tuple[Floats, Floats]:
    """Return [E] gains and [E, S] absolute residuals of the second about the first."""
    one, other = one_ES - one_ES.mean(axis=1, keepdims=True), other_ES - other_ES.mean(axis=1, keepdims=True)
    gain = (one * other).sum(axis=1) / (np.square(one).sum(axis=1) + 1)
    return gain, np.abs(other - gain[:, None] * one)


def _warped(picture: Floats, warp_E4: Floats) -> Floats:
    """Resample pictures [E, n, n] or [E, n, n, 3], separably."""
    count, side = picture.shape[:2]
    rows = _sampling(warp_E4[:, 1], warp_E4[:, 3], side)
    columns = _sampling(warp_E4[:, 0], warp_E4[:, 2], side)
    high = (rows @ picture.reshape(count, side, -1)).reshape(picture.shape)
    if picture.ndim == 4:
        return np.asarray(columns[:, None] @ high)
    return np.asarray(high @ columns.transpose(0, 2, 1))


def _sampling(shift_E: Floats, scale_E: Floats, side: int) -> Floats:
    """Return [E, n, n] matrices of cubic interpolation (Keys 1981, a = -0.5) at shifted, scaled places."""
    centre = np.float32((side - 1) / 2)
    cells = np.arange(side, dtype=np.float32)
    place = centre + (1 + scale_E[:, None]) * (cells - centre) + shift_E[:, None]
    x = np.abs(np.clip(place, 0, side - 1)[:, :, None] - cells)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((2.5 - 0.5 * x) * x - 4) * x + 2
    weights = np.where(x < 1, near, np.where(x < 2, far, 0))
    return np.asarray(weights / weights.sum(axis=2, keepdims=True), dtype=np.float32)


def _smoothed(picture_EDD: Floats) -> Floats:
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(picture_EDD, (0, 0.7, 0.7), mode="nearest", truncate=2))


def _detail(picture_EDD: Floats, floor: float) -> Floats:
    """Return what is left of the 5 x 5 mean, divided by its own strength there, flattened."""
    size = (0, 5, 5)
    from scipy.ndimage import uniform_filter

    detail = picture_EDD - uniform_filter(picture_EDD, size, mode="nearest")
    power = uniform_filter(np.square(detail), size, mode="nearest")
    return _inner(detail / np.sqrt(np.maximum(power, 0) + floor**2))


def _inner(picture_EDD: Floats) -> Floats:
    return picture_EDD[:, MARGIN:-MARGIN, MARGIN:-MARGIN].reshape(len(picture_EDD), -1)


def _correlation(one: Floats, other: Floats) -> Floats:
    norm = np.sqrt(np.square(one).sum(axis=1) * np.square(other).sum(axis=1))
    return np.asarray((one * other).sum(axis=1) / (norm + 1e-6))


def _tints(one_ETT3: Floats, other_ETT3: Floats) -> tuple[Floats, Floats]:
    """Return the tint difference that 20 of the inner cells exceed, the cast taken out; and the cast."""
    gap = (tint_of(one_ETT3) - tint_of(other_ETT3))[:, 1:-1, 1:-1].reshape(len(one_ETT3), -1, 2)
    cast = np.median(gap, axis=1)
    largest = np.abs(gap - cast[:, None]).max(axis=2)
    return np.partition(largest, -20, axis=1)[:, -20], np.abs(cast).max(axis=1)


def tint_of(cells: Floats) -> Floats:
    """Return [..., 2]: red and blue less green, as shares of the mean; brightness hardly changes them."""
    mean = np.maximum(cells.mean(axis=-1, keepdims=True), 0) + 20
    return np.asarray((cells[..., ::2] - cells[..., 1:2]) / mean)
