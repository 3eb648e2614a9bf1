"""Value names: an attribute that has values but no labels starts from their names, held against the photo.

It knows paired towers of pictures and texts (Radford et al. 2021, "Learning Transferable Visual Models From Natural
Language Supervision"), not how anything else is learnt.
Legend: n rows of one category, D features, V values packed, v of one attribute.
"""

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from shelfwise.catalog import ONE_CATEGORY, Catalog
from shelfwise.errors import UsageError
from shelfwise.models.text_encoders import build_text_encoder
from shelfwise.predictions import Machine
from shelfwise.registry import REGISTRIES, Spec
from shelfwise.taxonomy import Taxonomy

Floats = npt.NDArray[np.float32]
#: What a cosine is multiplied by: the largest that CLIP was allowed in training, and where it ended.
SCALE = 100.0


def paired_encoder(backbone: Spec) -> Spec:
    """Return the text encoder whose vectors lie in the space of a backbone's.

    Raises:
        UsageError: there is none.
    """
    if backbone.name != "open_clip":
        raise UsageError(
            f"the backbone {backbone.name!r} has no text tower beside it, so names of values mean nothing to it; "
            'take backbone = { name = "open_clip", model = ..., weights = ... }, or start_unlabelled = "uniform"'
        )
    kept = {key: value for key, value in backbone.table().items() if key in ("model", "weights", "seed")}
    return REGISTRIES["text_encoder"].spec("clip", **kept)


def name_vectors(train: Catalog, backbone: Spec, dimension: int, machine: Machine) -> dict[str, Floats]:
    """Return float32 [V, D] of each category with attributes that have no label: vectors of length 1, NaN for others.

    Raises:
        UsageError: a text tower of another dimension than the photos' vectors.
    """
    taxonomy, asked = train.taxonomy, dict[str, list[tuple[int, str]]]()
    for category in taxonomy.categories:
        labels_nA = train.labels(category)
        thing = "" if category == ONE_CATEGORY else f" {category}"
        parts = zip(taxonomy.choices(category), taxonomy.slices(category), strict=True)
        for attribute, (choice, part) in enumerate(parts):
            if not (labels_nA[:, attribute] >= 0).any():
                prompts = [f"a photo of {value}{thing}" for value in choice.values]
                asked.setdefault(category, []).extend(zip(range(part.start, part.stop), prompts, strict=True))
    if not any(asked.values()):
        return {}
    encoder = build_text_encoder(paired_encoder(backbone)).fit((), seed=0)
    if encoder.dimension != dimension:
        raise UsageError(
            f"the text tower gives {encoder.dimension} numbers and the backbone {dimension}: they are not a pair"
        )
    found = {}
    for category, entries in asked.items():
        if entries:
            names_VD = np.full((taxonomy.width(category), dimension), np.nan, np.float32)
            names_VD[[at for at, _ in entries]] = _unit(
                encoder.encode([text for _, text in entries], machine)
            )
            found[category] = names_VD
    return found


def start_from_names(
    probs_nV: Floats, taxonomy: Taxonomy, category: str, names_VD: Floats, photos_nD: Floats
) -> None:
    """Put in what the names say of attributes nobody has labelled, in place; a row without a photo stays as it is."""
    seen = np.flatnonzero(np.isfinite(photos_nD).all(axis=1))
    unit_nD = _unit(photos_nD[seen]).astype(np.float64)
    for part in taxonomy.slices(category):
        if part.stop > part.start and np.isfinite(names_VD[part]).all():
            cosine_nv = unit_nD @ names_VD[part].astype(np.float64).T
            probs_nV[seen, part] = softmax(SCALE * cosine_nv, axis=1)


def _unit(vectors_nD: Floats) -> Floats:
    length_n1 = np.maximum(np.linalg.norm(vectors_nD, axis=1, keepdims=True), 1e-12)
    unit: Floats = (vectors_nD / length_n1).astype(np.float32)
    return unit
