"""Splits: groups stay whole, shares stay even, row order does not matter, and folds can be kept."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from conftest import Toy
from shelfwise.catalog import Catalog
from shelfwise.errors import CatalogError, UsageError
from shelfwise.splits import Folds, assign


def random_labels(n: int, rng: np.random.Generator) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Two attributes of 3 and 5 values, a fifth of the labels missing."""
    sizes, columns, rows, attribute = (3, 5), [], [], []
    for number, size in enumerate(sizes):
        label = rng.choice(size, n, p=np.arange(1, size + 1) / np.arange(1, size + 1).sum())
        stated = np.flatnonzero(rng.random(n) < 0.8)
        rows.append(stated)
        columns.append(label[stated] + sum(sizes[:number]))
        attribute += [number] * size
    row, column = np.concatenate(rows), np.concatenate(columns)
    return sparse.csr_matrix((np.ones(len(row)), (row, column)), shape=(n, sum(sizes))), np.array(attribute)


def largest_gap(labels: sparse.csr_matrix, attribute: np.ndarray, part: np.ndarray) -> float:
    """The largest difference of a value's share between a part and everything, by hand."""
    dense, worst = labels.toarray(), 0.0
    for number in np.unique(attribute):
        block = dense[:, attribute == number]
        if block.sum() < 200:
            continue
        overall = block.sum(0) / block.sum()
        for p in np.unique(part):
            worst = max(
                worst, float(np.abs(block[part == p].sum(0) / block[part == p].sum() - overall).max())
            )
    return worst


@pytest.mark.parametrize("shares", [[0.2] * 5, [0.9, 0.1], [0.5, 0.5]])
def test_groups_whole_shares_even(shares: list[float]):
    rng = np.random.default_rng(0)
    n = 3000
    labels, attribute = random_labels(n, rng)
    groups = rng.integers(0, 1200, n)
    part = assign(labels, attribute, groups, shares, [f"{k:05d}" for k in range(n)], 0)
    assert all(len(np.unique(part[groups == group])) == 1 for group in np.unique(groups))
    sizes = np.bincount(part, minlength=len(shares)) / n
    assert np.abs(sizes - shares).max() < 0.02
    assert largest_gap(labels, attribute, part) <= 0.02


def test_groups_of_one_label_stay_even():
    """Groups that hold a single value each are the hard case: no chance evens them out."""
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(200), 8)
    label = (np.arange(200) % 4)[groups]
    labels = sparse.csr_matrix((np.ones(1600), (np.arange(1600), label)), shape=(1600, 4))
    order = rng.permutation(1600)
    part = assign(labels[order], np.zeros(4, int), groups[order], [0.2] * 5, [f"{k:04d}" for k in order], 3)
    assert largest_gap(labels[order], np.zeros(4, int), part) <= 0.02


@given(st.integers(0, 2**31), st.integers(2, 5))
@settings(max_examples=20, deadline=None)
def test_row_order_does_not_matter(seed: int, k: int):
    rng = np.random.default_rng(seed)
    n = 120
    labels, attribute = random_labels(n, rng)
    groups = rng.integers(0, 40, n)
    renamed = rng.permutation(40)
    keys = [f"{key:04d}" for key in range(n)]
    order = rng.permutation(n)
    first = assign(labels, attribute, groups, [1 / k] * k, keys, 7)
    second = assign(
        labels[order], attribute, renamed[groups[order]], [1 / k] * k, [keys[o] for o in order], 7
    )
    assert np.array_equal(first[order], second)


def test_another_seed_draws_other_folds(toy: Toy):
    first, second = toy.catalog.folds(3, seed=0), toy.catalog.folds(3, seed=1)
    assert first.fingerprint != second.fingerprint
    assert first.fingerprint == toy.catalog.folds(3, seed=0).fingerprint


def test_folds_partition_the_rows(toy: Toy):
    folds = toy.catalog.folds(4, groups=np.arange(len(toy.catalog)) // 3)
    assert folds.k == 4
    assert folds.grouped
    for fold in range(4):
        assert sorted([*folds.train(fold), *folds.test(fold)]) == list(range(len(toy.catalog)))
    groups = np.arange(len(toy.catalog)) // 3
    assert all(len(np.unique(folds.fold[groups == g])) == 1 for g in np.unique(groups))


def test_folds_of_a_shuffled_table_are_the_same(toy: Toy):
    order = np.random.default_rng(0).permutation(len(toy.catalog))
    groups = np.arange(len(toy.catalog)) // 2
    first = toy.catalog.folds(3, groups=groups)
    second = toy.catalog.select(order).folds(3, groups=groups[order])
    assert np.array_equal(first.fold[order], second.fold)
    assert first.fingerprint == second.fingerprint


def test_split_gives_two_catalogues(toy: Toy):
    train, test = toy.catalog.split(0.25, groups=np.arange(len(toy.catalog)) // 2, seed=1)
    assert set(train.ids) | set(test.ids) == set(toy.catalog.ids)
    assert not set(train.ids) & set(test.ids)
    assert abs(len(test) / len(toy.catalog) - 0.25) < 0.03


@pytest.mark.parametrize("share", [0, 1, -0.5, 2])
def test_a_share_is_between_none_and_all(toy: Toy, share: float):
    with pytest.raises(UsageError, match="between 0 and 1"):
        toy.catalog.split(share)


def test_too_few_groups_and_wrong_lengths(toy: Toy):
    with pytest.raises(UsageError, match="k >= 2"):
        toy.catalog.folds(1)
    with pytest.raises(UsageError, match="2 groups cannot be split into 3 parts"):
        toy.catalog.folds(3, groups=np.arange(len(toy.catalog)) % 2)
    with pytest.raises(UsageError, match="5 group numbers for 180 products"):
        toy.catalog.folds(3, groups=np.arange(5))


def test_folds_are_saved_and_reused_in_any_order(toy: Toy, tmp_path: Path):
    folds = toy.catalog.folds(3, groups=np.arange(len(toy.catalog)) // 2, seed=4)
    folds.save(tmp_path / "folds.json")
    again = Folds.load(tmp_path / "folds.json", toy.catalog.ids)
    assert np.array_equal(again.fold, folds.fold)
    assert (again.grouped, again.seed, again.fingerprint) == (True, 4, folds.fingerprint)
    order = np.random.default_rng(0).permutation(len(toy.catalog))[:50]
    part = Folds.load(tmp_path / "folds.json", [toy.catalog.ids[k] for k in order])
    assert np.array_equal(part.fold, folds.fold[order])
    with pytest.raises(CatalogError, match="1 products have no fold: 'new'"):
        Folds.load(tmp_path / "folds.json", ["00001", "new"])
    (tmp_path / "bad.json").write_text('{"ids": ["1"], "fold": []}')
    for name in ("bad.json", "none.json"):
        with pytest.raises(CatalogError, match="cannot read the folds"):
            Folds.load(tmp_path / name, [])


@pytest.mark.data
@pytest.mark.parametrize("name", ["fashion", "myntra"])
def test_shares_of_the_shared_catalogues(shared_data: Path, name: str):
    catalog = Catalog.read(shared_data / name / "catalog.csv")
    titles: dict[tuple[int, str], int] = {}
    keys = [
        (int(c), text or str(row))
        for row, (c, text) in enumerate(zip(catalog.category, catalog.texts("title"), strict=True))
    ]
    groups = np.array([titles.setdefault(key, len(titles)) for key in keys])
    sizes = np.bincount(groups)
    groups = np.where(sizes[groups] > 50, len(sizes) + np.arange(len(groups)), groups)
    folds, checked = catalog.folds(5, groups=groups), 0
    assert all(len(np.unique(folds.fold[groups == group])) == 1 for group in np.flatnonzero(sizes > 5))
    for category in catalog.present:
        rows, labels = catalog.rows(category), catalog.labels(category)
        if np.unique(groups[rows], return_counts=True)[1].max() > len(rows) / 5 / 5:
            continue  # one group is more than a fifth of a fold: no way of dealing it out evens it
        for column, choice in enumerate(catalog.taxonomy.choices(category)):
            stated = labels[:, column] >= 0
            if stated.sum() < 200:
                continue
            overall = np.bincount(labels[stated, column], minlength=len(choice.values)) / stated.sum()
            for fold in range(folds.k):
                here = stated & (folds.fold[rows] == fold)
                shares = np.bincount(labels[here, column], minlength=len(choice.values)) / here.sum()
                gap = np.abs(shares - overall).max()
                assert gap <= 0.02, f"{category}/{choice.name}, fold {fold}: {gap:.3f}"
                checked += 1
    assert checked > 100
