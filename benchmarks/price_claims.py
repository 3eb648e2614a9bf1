"""Claims about prices, one by one, on frozen features: paired SMAPE out of fold over near-duplicate groups.

``ridge`` and ``network`` see frozen EfficientNet-Lite0 features of the photo, and 256 singular vectors of the TF-IDF of
the text or MiniLM of it cut at 64 tokens. The network has one hidden layer of 256 and learns for 40 epochs by the
registered losses of Numbers; its answers are means of three seeds. ``boost`` is the default recipe. A gain is the mean
of the reference's SMAPE less the change's, with the 95 % interval of a bootstrap over groups: above zero, the change
is better. ``correlation`` is that of the two errors of the log price. ``seconds`` are CPU seconds of all folds.

The catalogues are found through ``SHELFWISE_DATA`` and are not part of this repository.
"""

import argparse
import functools
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from price_quality import DATA, NAME, TABLES, interval, smapes
from shelfwise.amounts import MEDIAN
from shelfwise.catalog import Catalog
from shelfwise.config import make_recipe
from shelfwise.crossfit import cross_fit
from shelfwise.data.group import near_duplicates
from shelfwise.data.text import encoder_text, read_listings
from shelfwise.files import cache_directory
from shelfwise.models.text_encoders import build_text_encoder
from shelfwise.predictions import Machine
from shelfwise.recipes.features import features
from shelfwise.registry import REGISTRIES
from shelfwise.splits import Folds

Float = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
TOKENS, SINGULAR, HIDDEN, EPOCHS, SEEDS = 64, 256, 256, 40, 3
#: Two of these are compared: the change, then the reference.
PAIRS = (
    ("boost, photo alone", "boost"),
    ("boost, text alone", "boost"),
    ("ridge on photo", "ridge on both"),
    ("ridge on text", "ridge on both"),
    ("network on photo", "network on both"),
    ("network on text", "network on both"),
    ("network on both, SMAPE loss", "network on both"),
    ("ridge on text as written", "ridge on text"),
    ("MiniLM, text first", "MiniLM, quantity first"),
    ("boost, ends of prices drawn in", "boost"),
    ("boost and network", "boost"),
    ("boost, network and ridge", "boost"),
)


class Prices:
    """The products of a catalogue with a price, and what is seen of them.

    Args:
        name: of the catalogue.
        folds: how many of five grouped folds are scored.
    """

    def __init__(self, name: str, folds: int) -> None:
        catalog = Catalog.read(DATA / TABLES[name]).only("numbers")
        group_N = near_duplicates(catalog, cache=cache_directory())
        fold_N = catalog.folds(5, groups=group_N, seed=0).fold
        stated = np.flatnonzero(np.isfinite(catalog.numbers(NAME)))
        self.catalog, self.group_N = catalog.select(stated).remembering(), group_N[stated]
        self.folds = Folds(self.catalog.ids, fold_N[stated], True, 0)
        self.price_N = self.catalog.numbers(NAME)
        self.scored = np.flatnonzero(self.folds.fold < folds)
        self.count = folds

    @cached_property
    def photo(self) -> Float:
        """Frozen features, zeros where there is no photo."""
        found = features(self.catalog, REGISTRIES["backbone"].spec("lite0"), Machine())
        return np.nan_to_num(found.vectors).astype(np.float64)

    @cached_property
    def listings(self) -> list[str]:
        """Texts as they are read: cleaned, prices masked, the quantity first."""
        return [encoder_text(each) for each in read_listings(self.catalog)]

    @cached_property
    def raw(self) -> list[str]:
        """Texts as they are written."""
        columns = [self.catalog.texts(name) for name in self.catalog.text_columns]
        return [" ".join(cell for cell in cells if cell) for cells in zip(*columns, strict=True)]

    def reading(self, texts: Sequence[str], train: Ints) -> Float:
        """Return singular vectors of TF-IDF [N, D], learnt from the training rows."""
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer

        tfidf = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
        known = tfidf.fit_transform([texts[row] for row in train.tolist()])
        svd = TruncatedSVD(SINGULAR, random_state=0).fit(known)
        return np.asarray(svd.transform(tfidf.transform(texts)))

    def minilm(self, quantity_first: bool) -> Float:
        """Return MiniLM of the texts, cut at so many tokens."""
        texts = self.listings
        if not quantity_first:
            texts = []
            for each in read_listings(self.catalog):
                plain = encoder_text(replace(each, pack=1, value=float("nan")))
                rest = encoder_text(each).removesuffix(plain)
                texts.append(f"{plain}. {rest}".rstrip(". "))
        encoder = build_text_encoder(REGISTRIES["text_encoder"].spec("sentence", max_tokens=TOKENS))
        return np.asarray(encoder.fit(sorted(set(texts)), seed=0).encode(texts, Machine()), np.float64)


def levelled(x_ND: Float, train: Ints) -> Float:
    """Return vectors about the training rows' mean, with a total variance that is the same for every kind."""
    away_ND = x_ND - x_ND[train].mean(axis=0)
    return np.asarray(away_ND * np.sqrt(SINGULAR / away_ND[train].var(axis=0).sum()))


def ridge(known: Float, target: Float, asked: Float) -> Float:
    """Return what a ridge regression says, its penalty chosen by generalised cross-validation."""
    from sklearn.linear_model import RidgeCV

    return np.asarray(RidgeCV(alphas=np.logspace(0, 4, 13)).fit(known, target).predict(asked))


def network(known: Float, target: Float, asked: Float, loss: str = "l1") -> Float:
    """Return what a small network says, learnt by a loss of Numbers on the standardised log price."""
    shift, spread = float(target.mean()), float(target.std())
    losses = REGISTRIES["number_loss"]
    cost = functools.partial(losses.build, losses.spec(loss))
    x_ND, y_N = torch.tensor(known).float(), torch.tensor((target - shift) / spread).float()
    asked_MD = torch.tensor(asked).float()
    said = []
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        layers = torch.nn.Linear(known.shape[1], HIDDEN), torch.nn.ReLU(), torch.nn.Dropout(0.5)
        net = torch.nn.Sequential(*layers, torch.nn.Linear(HIDDEN, 2))
        optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.1)
        steps = EPOCHS * -(-len(y_N) // 128)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for _ in range(EPOCHS):
            for rows in torch.split(torch.randperm(len(y_N)), 128):
                out = net(x_ND[rows])
                optimiser.zero_grad()
                cost(out[:, 0], out[:, 1], y_N[rows], spread).mean().backward()
                optimiser.step()
                schedule.step()
        net.eval()
        with torch.inference_mode():
            said.append(net(asked_MD)[:, 0].double().numpy() * spread + shift)
    found: Float = np.mean(said, axis=0)
    return found


def tools(prices: Prices) -> dict[str, Callable[[], Float]]:
    """Return, by name, what gives the log prices of the scored rows."""
    seen: dict[tuple[str, int], Float] = {}

    def looked(what: str, fold: int) -> Float:
        if (what, fold) not in seen:
            train = prices.folds.train(fold)
            texts = prices.raw if what == "as written" else prices.listings
            seen[what, fold] = prices.photo if what == "photo" else prices.reading(texts, train)
        return seen[what, fold]

    def by(
        fit: Callable[..., Float], *what: str, vectors: Callable[[], Float] | None = None, **options: Any
    ) -> Any:
        def say() -> Float:
            said_N, fixed = np.zeros(len(prices.catalog)), None if vectors is None else vectors()
            for fold in range(prices.count):
                parts = [looked(each, fold) for each in what] if fixed is None else [fixed]
                train, test = prices.folds.train(fold), prices.folds.test(fold)
                x_ND = np.concatenate([levelled(part, train) for part in parts], axis=1)
                said_N[test] = fit(x_ND[train], np.log(prices.price_N[train]), x_ND[test], **options)
            return said_N[prices.scored]

        return say

    def boost(**options: Any) -> Any:
        def say() -> Float:
            recipe = make_recipe({"name": "boost", **options})
            amount = cross_fit(recipe, prices.catalog, prices.folds, machine=Machine(jobs=1)).amount(NAME)
            assert amount is not None
            return np.log(amount.quantiles[:, MEDIAN].astype(np.float64))[prices.scored]

        return say

    return {
        "boost": boost(),
        "boost, photo alone": boost(inputs=["image"]),
        "boost, text alone": boost(inputs=["text"]),
        "boost, ends of prices drawn in": boost(clip=0.01),
        "ridge on photo": by(ridge, "photo"),
        "ridge on text": by(ridge, "text"),
        "ridge on both": by(ridge, "photo", "text"),
        "ridge on text as written": by(ridge, "as written"),
        "network on photo": by(network, "photo"),
        "network on text": by(network, "text"),
        "network on both": by(network, "photo", "text"),
        "network on both, SMAPE loss": by(network, "photo", "text", loss="smape"),
        "MiniLM, quantity first": by(ridge, vectors=lambda: prices.minilm(True)),
        "MiniLM, text first": by(ridge, vectors=lambda: prices.minilm(False)),
    }


def one(name: str, only: Sequence[str], folds: int) -> dict[str, Any]:
    """Measure one catalogue."""
    prices = Prices(name, folds)
    truth_n, group_n = prices.price_N[prices.scored], prices.group_N[prices.scored]
    how, said, seconds = tools(prices), {}, {}
    result: dict[str, Any] = {"rows": len(truth_n)}
    quantity = [each.pack > 1 or np.isfinite(each.value) for each in read_listings(prices.catalog)]
    result["share with a quantity"] = round(float(np.mean(quantity)), 3)

    def get(what: str) -> Float:
        if what not in said:
            began = time.process_time()
            parts: dict[str, tuple[str, ...]] = {"boost and network": ("boost", "network on both")}
            parts["boost, network and ridge"] = ("boost", "network on both", "ridge on both")
            mixed = what in parts
            said[what] = np.mean([get(part) for part in parts[what]], axis=0) if mixed else how[what]()
            seconds[what] = round(time.process_time() - began, 1)
        return said[what]

    for change, reference in PAIRS:
        if only and change not in only:
            continue
        two = [smapes(truth_n, np.exp(get(what))) for what in (change, reference)]
        errors = [get(what) - np.log(truth_n) for what in (change, reference)]
        result[change] = {
            "smape": round(float(two[0].mean()), 2),
            "reference": round(float(two[1].mean()), 2),
            "gain": round(float((two[1] - two[0]).mean()), 2),
            "interval": interval(two[1] - two[0], group_n),
            "correlation": round(float(np.corrcoef(errors[0], errors[1])[0, 1]), 3),
            "seconds": seconds[change],
        }
        print(f"{name} {change}: {result[change]}", file=sys.stderr, flush=True)
    return result


def main(
    quick: bool = False,
    tables: Sequence[str] = ("flipkart", "fashion"),
    only: Sequence[str] = (),
    folds: int = 5,
) -> dict[str, Any]:
    result: dict[str, Any] = {"benchmark": "price_claims"}
    if quick:
        tables, only, folds = tables[:1], ("ridge on photo", "network on both, SMAPE loss"), 1
    absent = [name for name in tables if not (DATA / TABLES[name]).exists()]
    if absent or not tables:
        return {**result, "skipped": f"{DATA / TABLES[absent[0]] if absent else DATA} is not there"}
    return result | {name: one(name, only, folds) for name in tables}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one catalogue, one fold, two claims")
    parser.add_argument("--tables", nargs="*", default=("flipkart", "fashion"), choices=tuple(TABLES))
    parser.add_argument(
        "--only", nargs="*", default=(), choices=[pair[0] for pair in PAIRS], metavar="CHANGE"
    )
    parser.add_argument("--folds", type=int, default=5, choices=range(1, 6), help="of the five, scored")
    print(json.dumps(main(**vars(parser.parse_args()))))
