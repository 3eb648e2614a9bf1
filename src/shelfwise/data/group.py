"""Near-duplicate groups: identical files, look-alike photos, shared titles or product codes.

It does not know splits or models; it numbers rows so that rows of one product share a number. The core,
``groups_of``, is arrays in, numbers out. Legend: N rows, U distinct photos, C colour numbers, E links.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from shelfwise.catalog import Catalog
from shelfwise.data.alike import bases, likeness, luma_cells, residuals, tint_of
from shelfwise.data.facts import FactTable, facts_of
from shelfwise.data.store import Store
from shelfwise.errors import UsageError
from shelfwise.files import Progress
from shelfwise.roles import CODE_NAMES, TITLE_NAMES

#: The cache of look-alike pairs, and the number to raise when the comparison changes.
STORE_NAME, REVISION = "alike-1.sqlite", 1
#: Bits of 64 by which the hashes of look-alike photos may differ; a crop of 3 % a side costs up to 12.
HASH_DISTANCE = 12
#: Mean difference of the 32 tints, in levels of 255, up to which photos are compared further.
COLOUR_DISTANCE = 7.0
#: Root mean square residual of the 16 x 16 luma, in levels, after the best gain, offset, shift and scale.
RESIDUAL = 10.0
#: Log odds from which a pair is one photograph; see ``alike``. Shop photos are posed alike: hashes alone
#: chain thousands of trousers and shoes together.
ODDS = 2.0
#: Photos whose 32 x 32 luma varies less than this are too plain for a hash: only identical files are linked.
LEAST_DETAIL = 5.0
#: A title shared by more rows of a category than this, or than 1 in 200 of the table, is a generic name.
MOST_ROWS_A_TITLE = 50
MORE_CODE_NAMES = ("sku_group", "style_id", "parent_sku", "parent_asin", "productcode", "product_group")
MORE_TITLE_NAMES = ("product_title", "productdisplayname", "item_title")


def near_duplicates(
    catalog: Catalog,
    *,
    cache: Path | None = None,
    jobs: int | None = None,
    hash_distance: int = HASH_DISTANCE,
    colour_distance: float = COLOUR_DISTANCE,
    use_text: bool = True,
    progress: Progress | None = None,
) -> NDArray[np.int64]:
    """Return int64 [N], the number of each product's group, groups numbered as they first appear.

    Two products are of one group if their files are identical, their photos look alike (one photograph
    encoded, resized, brightened or trimmed again; measured figures are in ``look_alikes``),
    or they share a title or a product code, directly or through others. Titles and codes count within a
    category, blanks and case folded; a title that more than 50 rows (and more than 1 in 200) share is a
    generic name and links nothing. A product without a readable photo is a group of its own unless a
    title or code links it.

    Args:
        catalog: the products.
        cache: directory of the cache of picture facts; ``None`` for none.
        jobs: threads.
        hash_distance: bits of 64 by which look-alike photos may differ.
        colour_distance: mean difference of tint, in levels of 255, of look-alike photos.
        use_text: also link by title and product code.
        progress: told how far it is.
    """
    facts = facts_of(catalog.images, cache=cache, jobs=jobs, progress=progress)
    keys = text_keys(catalog) if use_text else []
    return groups_of(facts, keys, hash_distance=hash_distance, colour_distance=colour_distance, cache=cache)


def text_keys(catalog: Catalog) -> list[list[str | None]]:
    """Return, per title or product-code column, a key for each row; ``None`` links nothing."""
    titles = {*TITLE_NAMES, *MORE_TITLE_NAMES}
    codes = {*CODE_NAMES, *MORE_CODE_NAMES}
    known = [name for name in catalog.text_columns if name.strip().casefold() in titles]
    known += [name for name in catalog.frame.columns if name.strip().casefold() in codes]
    most = max(MOST_ROWS_A_TITLE, len(catalog) // 200)
    missing = {token.casefold() for token in catalog.schema.missing}
    columns: list[list[str | None]] = []
    for name in known:
        keys: list[str | None] = []
        for text, category in zip(catalog.texts(name), catalog.category.tolist(), strict=True):
            folded = " ".join((text or "").split()).casefold()
            keys.append(None if not folded or folded in missing else f"{category}\0{folded}")
        if name.strip().casefold() in titles:
            shared = Counter(keys)
            keys = [None if shared[key] > most else key for key in keys]
        columns.append(keys)
    return columns


def groups_of(
    facts: FactTable,
    keys: Sequence[Sequence[str | None]] = (),
    *,
    hash_distance: int = HASH_DISTANCE,
    colour_distance: float = COLOUR_DISTANCE,
    least_detail: float = LEAST_DETAIL,
    cache: Path | None = None,
) -> NDArray[np.int64]:
    """Return int64 [N] group numbers from picture facts and text keys; see ``near_duplicates``.

    Args:
        facts: of the N rows.
        keys: columns of N keys each; rows with an equal key other than ``None`` are linked.
        hash_distance: bits of 64.
        colour_distance: of tint, levels of 255.
        least_detail: photos with less ``detail`` are linked only where their files are identical.
        cache: see ``look_alikes``.
    """
    photo_N = same_file(facts)
    links = [same_keys([None if photo < 0 else photo for photo in photo_N.tolist()])]
    links += [same_keys(column) for column in keys]
    links.append(look_alikes(facts, photo_N, hash_distance, colour_distance, least_detail, cache))
    first, second = np.concatenate(links, axis=1)
    return joined(first, second, len(facts))


def joined(first: NDArray[np.int64], second: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return int64 [count], the connected components of links, numbered as they first appear."""
    from scipy.sparse.csgraph import connected_components

    graph = sparse.coo_matrix((np.ones(len(first), dtype=bool), (first, second)), shape=(count, count))
    _, label_N = connected_components(graph, directed=False)
    _, where, number_N = np.unique(label_N, return_index=True, return_inverse=True)
    rank = np.empty(len(where), dtype=np.int64)
    rank[np.argsort(where)] = np.arange(len(where))
    return rank[number_N]


def same_file(facts: FactTable) -> NDArray[np.int64]:
    """Return int64 [N], the number of each row's distinct file content; -1 without a readable picture."""
    photo_N = np.full(len(facts), -1, dtype=np.int64)
    rows = np.flatnonzero(facts.ok)
    if len(rows):
        digests = np.ascontiguousarray(facts.digest[rows]).view("V16").ravel()
        photo_N[rows] = np.unique(digests, return_inverse=True)[1]
    return photo_N


def same_keys(keys: Sequence[object]) -> NDArray[np.int64]:
    """Return int64 [2, E]: each row linked to the first row with the same key."""
    first: dict[object, int] = {}
    links = [
        (earlier, row)
        for row, key in enumerate(keys)
        if key is not None and (earlier := first.setdefault(key, row)) != row
    ]
    return np.array(links, dtype=np.int64).reshape(-1, 2).T


def look_alikes(
    facts: FactTable,
    photo_N: NDArray[np.int64],
    hash_distance: int = HASH_DISTANCE,
    colour_distance: float = COLOUR_DISTANCE,
    least_detail: float = LEAST_DETAIL,
    cache: Path | None = None,
) -> NDArray[np.int64]:
    """Return int64 [2, E]: pairs of rows (the first row of each distinct photo) whose photos look alike.

    Pairs near in hash and tint are candidates; those whose small lumas agree to the first order are
    aligned and compared in detail (``alike.likeness``). Pairs are taken in the order of the file digests,
    so that the order of the rows does not matter.

    The pairs of a set of photos are kept in ``cache`` under the digests of all of them, so that the same
    photos are compared once, whatever their names and order.

    Share of altered copies found, on 150 fashion and 100 myntra photos: JPEG 50, WebP, half or double
    size, 15 % darker, contrast 15 % up or down, cast of 5 %: 0.99 to 1; 15 % brighter, where whites clip:
    0.88 and 0.82; a mark across the centre: 0.97 and 0.92; trimmed at every side by 1 %: 0.99 and 1, by
    2 %: 0.74 and 0.94, by 3 %: 0.47 and 0.38; an opaque label in a corner: 0.02. Of the 63 and 29
    million pairs of the catalogues themselves 5 and 10 are linked: one photograph recoloured, and a
    few plain black things posed alike.
    """
    rows = np.flatnonzero((photo_N >= 0) & (facts.detail >= least_detail))
    rows = rows[np.unique(photo_N[rows], return_index=True)[1]]
    if cache is None:
        return np.asarray(rows[_alike(facts, rows, hash_distance, colour_distance)], dtype=np.int64)
    settings = f"{REVISION} {hash_distance} {colour_distance} {least_detail}".encode()
    key = hashlib.blake2b(settings + facts.digest[rows].tobytes(), digest_size=16).digest()
    with Store(cache / STORE_NAME) as store:
        known = store.get([key]).get(key)
        if known is None:
            known = _alike(facts, rows, hash_distance, colour_distance).astype("<i8").tobytes()
            store.put({key: known})
    pairs = np.frombuffer(known, dtype="<i8").astype(np.int64).reshape(2, -1)
    return np.asarray(rows[pairs], dtype=np.int64)


def _alike(
    facts: FactTable, rows: NDArray[np.int64], hash_distance: int, colour_distance: float
) -> NDArray[np.int64]:
    """Return int64 [2, E], pairs of positions in ``rows`` whose photos look alike."""
    pairs = close_pairs(facts.phash[rows], tints(facts.colour[rows]), hash_distance, colour_distance)
    pairs = pairs[:, _agreeing(facts.thumb[rows], pairs)]
    parts = np.array_split(pairs, 1 + pairs.shape[1] // 2048, axis=1)

    def one_photograph(part: NDArray[np.int64]) -> NDArray[np.bool_]:
        lumas = (facts.luma[rows[side]].reshape(-1, 48, 48) for side in part)
        thumbs = (facts.thumb[rows[side]].reshape(-1, 16, 16, 3) for side in part)
        return np.asarray(likeness(*lumas, *thumbs) >= ODDS)

    with ThreadPoolExecutor() as pool:
        kept = np.concatenate(list(pool.map(one_photograph, parts)))
    return np.asarray(pairs[:, kept], dtype=np.int64)


def tints(colour_UC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return uint8 [U, 32]: red and blue less green of each of the 4 x 4 cells; see ``alike.tint_of``."""
    tint = tint_of(colour_UC.reshape(len(colour_UC), 16, 3).astype(np.float32)).reshape(len(colour_UC), 32)
    return np.clip(128 + 128 * tint, 0, 255).astype(np.uint8)


def _agreeing(thumb_UT: NDArray[np.uint8], pairs_2E: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return bool [E], whether the small lumas of a pair agree; ``pairs_2E`` is sorted by its first row."""
    kept = np.zeros(pairs_2E.shape[1], dtype=np.bool_)
    thumbs = thumb_UT.reshape(-1, 16, 16, 3)
    for first in range(0, len(thumbs), 2048):
        basis, _ = bases(thumbs[first : first + 2048])
        low, high = np.searchsorted(pairs_2E[0], [first, first + 2048])
        for start in range(low, high, 4096):
            part = slice(start, min(start + 4096, high))
            cells = luma_cells(thumbs[pairs_2E[1, part]])
            kept[part] = residuals(basis[pairs_2E[0, part] - first], cells) <= RESIDUAL
    return kept


def close_pairs(
    phash_U: NDArray[np.uint64], colour_UC: NDArray[np.uint8], hash_distance: int, colour_distance: float
) -> NDArray[np.int64]:
    """Return int64 [2, E], all pairs within both distances, exactly, sorted.

    Photos are sorted by mean colour; a block is compared only with those whose means differ by at most
    the colour distance, a lower bound of it.

    Raises:
        UsageError: distances out of range.
    """
    if not 0 <= hash_distance < 32 or colour_distance < 0:
        raise UsageError(f"distances: 0 to 31 bits and not negative, not {hash_distance}, {colour_distance}")
    mean_U = colour_UC.mean(axis=1, dtype=np.float64)
    order = np.argsort(mean_U, kind="stable")
    mean, hashes, colours = mean_U[order], phash_U[order], colour_UC[order]
    starts = range(0, len(order), 256)
    last = np.searchsorted(mean, mean + colour_distance + 1e-9, side="right")

    def found_from(start: int) -> NDArray[np.int64]:
        stop = min(start + 256, len(order))
        found = [np.zeros((2, 0), dtype=np.int64)]
        for left in range(start, int(last[stop - 1]), 2048):
            other = hashes[left : left + 2048]
            near = np.bitwise_count(hashes[start:stop, None] ^ other) <= hash_distance
            one, two = np.nonzero(near)
            one, two = one + start, two + left
            ahead = two > one
            one, two = one[ahead], two[ahead]
            for at in range(0, len(one), 65536):
                i, j = one[at : at + 65536], two[at : at + 65536]
                gap = np.abs(colours[i].astype(np.int16) - colours[j]).mean(axis=1)
                found.append(np.stack([i[gap <= colour_distance], j[gap <= colour_distance]]))
        return np.concatenate(found, axis=1)

    with ThreadPoolExecutor() as pool:
        parts = [np.zeros((2, 0), dtype=np.int64), *pool.map(found_from, starts)]
    pairs = np.sort(order[np.concatenate(parts, axis=1)], axis=0)
    return pairs[:, np.lexsort((pairs[1], pairs[0]))]
