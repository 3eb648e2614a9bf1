"""Near-duplicate groups: identical files, look-alike photos, shared titles or product codes.

It does not know splits or models; it numbers rows so that rows of one product share a number. The core,
``groups_of``, is arrays in, numbers out. Legend: N rows, U distinct photos, C colour numbers, E links.
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from shelfwise.catalog import Catalog
from shelfwise.data.facts import FactTable, facts_of
from shelfwise.errors import UsageError
from shelfwise.files import Progress
from shelfwise.roles import CODE_NAMES, TITLE_NAMES

#: Bits of 64 by which the hashes of look-alike photos may differ.
HASH_DISTANCE = 4
#: Mean difference of the 48 colour numbers, in levels of 255, up to which photos are look-alikes.
COLOUR_DISTANCE = 2.5
#: Root mean square difference of the 16 x 16 cells, as a share of their spread, up to which photos are
#: look-alikes. Shop photos are posed alike: hashes alone chain thousands of trousers and shoes together.
SHAPE_DISTANCE = 0.1
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

    Two products are of one group if their files are identical, their photos look alike (hash and colour),
    or they share a title or a product code, directly or through others. Titles and codes count within a
    category, blanks and case folded; a title that more than 50 rows (and more than 1 in 200) share is a
    generic name and links nothing. A product without a readable photo is a group of its own unless a
    title or code links it.

    Args:
        catalog: the products.
        cache: directory of the cache of picture facts; ``None`` for none.
        jobs: threads.
        hash_distance: bits of 64 by which look-alike photos may differ.
        colour_distance: mean colour difference, in levels of 255, of look-alike photos.
        use_text: also link by title and product code.
        progress: told how far it is.
    """
    facts = facts_of(catalog.images, cache=cache, jobs=jobs, progress=progress)
    keys = text_keys(catalog) if use_text else []
    return groups_of(facts, keys, hash_distance=hash_distance, colour_distance=colour_distance)


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
) -> NDArray[np.int64]:
    """Return int64 [N] group numbers from picture facts and text keys; see ``near_duplicates``.

    Args:
        facts: of the N rows.
        keys: columns of N keys each; rows with an equal key other than ``None`` are linked.
        hash_distance: bits of 64.
        colour_distance: levels of 255.
        least_detail: photos with less ``detail`` are linked only where their files are identical.
    """
    photo_N = same_file(facts)
    links = [same_keys([None if photo < 0 else photo for photo in photo_N.tolist()])]
    links += [same_keys(column) for column in keys]
    links.append(look_alikes(facts, photo_N, hash_distance, colour_distance, least_detail))
    first, second = np.concatenate(links, axis=1)
    return joined(first, second, len(facts))


def joined(first: NDArray[np.int64], second: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return int64 [count], the connected components of links, numbered as they first appear."""
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
) -> NDArray[np.int64]:
    """Return int64 [2, E]: pairs of rows (the first row of each distinct photo) whose photos look alike."""
    rows = np.flatnonzero((photo_N >= 0) & (facts.detail >= least_detail))
    rows = rows[np.unique(photo_N[rows], return_index=True)[1]]
    pairs = close_pairs(facts.phash[rows], facts.colour[rows], hash_distance, colour_distance)
    pairs = rows[pairs].reshape(2, -1)
    parts = np.array_split(pairs, 1 + pairs.shape[1] // 10_000, axis=1)
    near = [shape_distance(facts.thumb[part[0]], facts.thumb[part[1]]) <= SHAPE_DISTANCE for part in parts]
    return pairs[:, np.concatenate(near)]


def shape_distance(first_ET: NDArray[np.uint8], second_ET: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return float32 [E], how far pairs of thumbs differ as a share of the spread of their cells."""
    first, second = first_ET.astype(np.float32), second_ET.astype(np.float32)
    gap = np.sqrt(np.square(first - second).mean(axis=1))
    spread = np.sqrt(first.std(axis=1) * second.std(axis=1))
    return np.asarray(gap / np.maximum(spread, 1), dtype=np.float32)


def close_pairs(
    phash_U: NDArray[np.uint64], colour_UC: NDArray[np.uint8], hash_distance: int, colour_distance: float
) -> NDArray[np.int64]:
    """Return int64 [2, E], all pairs within both distances, exactly.

    Hashes within d bits agree wholly on at least one of d + 1 blocks of bits (the pigeonhole step of
    multi-index hashing, Norouzi et al. 2012). Within a block, photos are sorted by mean colour, and only
    those whose means differ by at most the colour distance, a lower bound of it, are compared.

    Raises:
        UsageError: distances out of range.
    """
    if not 0 <= hash_distance < 32 or colour_distance < 0:
        raise UsageError(f"distances: 0 to 31 bits and not negative, not {hash_distance}, {colour_distance}")
    mean_U = colour_UC.mean(axis=1, dtype=np.float64)
    edges = np.linspace(0, 64, hash_distance + 2).astype(int)
    found = [np.zeros((2, 0), dtype=np.int64)]
    for low, high in itertools.pairwise(edges):
        mask = np.uint64((1 << int(high - low)) - 1)
        block_U = (phash_U >> np.uint64(low)) & mask
        order = np.lexsort((mean_U, block_U))
        block, mean, hashes = block_U[order], mean_U[order], phash_U[order]
        colours = colour_UC[order]
        live, step = np.arange(len(order)), 0
        while True:
            step += 1
            live = live[live + step < len(order)]
            live = live[
                (block[live] == block[live + step]) & (mean[live + step] - mean[live] <= colour_distance)
            ]
            if not len(live):
                break
            near = live[np.bitwise_count(hashes[live] ^ hashes[live + step]) <= hash_distance]
            gap = np.abs(colours[near].astype(np.int16) - colours[near + step]).mean(axis=1)
            near = near[gap <= colour_distance]
            found.append(np.stack([order[near], order[near + step]]))
    pairs = np.sort(np.concatenate(found, axis=1), axis=0)
    return np.unique(pairs, axis=1)
