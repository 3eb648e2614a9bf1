"""Augmentation: each picture by its own seed, one warp, one colour matrix, and labels that a change makes unsure."""

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from shelfwise.data.augment import (
    Affine,
    Augment,
    Blur,
    Colour,
    Crop,
    Erase,
    Exclude,
    Flip,
    Mixing,
    Perspective,
    Rotate,
    mix,
)
from shelfwise.data.draws import Draws
from shelfwise.data.warp import blur, colour_matrices, homographies, recolour, warp
from shelfwise.errors import UsageError
from shelfwise.taxonomy import Choice, Taxonomy

NOTHING = {"crop": Crop(probability=0), "flip": Flip(probability=0)}
ALL = Augment(
    rotate=Rotate(probability=0.5),
    affine=Affine(probability=0.5),
    perspective=Perspective(probability=0.5),
    colour=Colour(probability=0.7, hue=0.1),
    blur=Blur(probability=0.5),
    erase=Erase(probability=0.5),
)
TAXONOMY = Taxonomy(
    {
        "k": (
            Choice("side", ("left", "right")),
            Choice("colour", ("red", "blue")),
            Choice("size", ("s", "l")),
        ),
        "m": (Choice("colour", ("red", "blue")), Choice("side", ("left", "right"))),
    }
)


def pictures(count: int = 12, height: int = 48, width: int = 40) -> torch.Tensor:
    """Smooth pictures: a wrong place or colour is seen as a wrong value, and rounding is not."""
    draw = torch.Generator().manual_seed(3)
    small = torch.rand(count, 3, 5, 4, generator=draw) * 255
    large = torch.nn.functional.interpolate(small, size=(height, width), mode="bilinear")
    return large.permute(0, 2, 3, 1).round().to(torch.uint8).contiguous()


def test_a_picture_is_changed_by_its_own_seed_alone():
    images, seeds = pictures(), torch.arange(12) * 7919 - 5
    together = ALL.apply(images, (32, 32), seeds)
    assert together.images_BHWC.shape == (12, 32, 32, 3)
    assert together.images_BHWC.dtype == torch.float32
    order = torch.from_numpy(np.random.default_rng(0).permutation(12))
    shuffled = ALL.apply(images[order], (32, 32), seeds[order])
    assert torch.equal(shuffled.images_BHWC, together.images_BHWC[order])
    for row in range(12):
        alone = ALL.apply(images[row : row + 1], (32, 32), seeds[row : row + 1])
        assert torch.equal(alone.images_BHWC[0], together.images_BHWC[row])
        assert {k: bool(v) for k, v in alone.did.items()} == {
            k: bool(v[row]) for k, v in together.did.items()
        }


def test_seeds_make_the_difference():
    images = pictures(1).expand(8, -1, -1, -1)
    found = ALL.apply(images, (32, 32), torch.arange(8)).images_BHWC
    distances = torch.cdist(found.flatten(1), found.flatten(1)) + torch.eye(8) * 1e9
    assert float(distances.min()) > 10
    again = ALL.apply(images, (32, 32), torch.full((8,), 5)).images_BHWC
    assert bool((again == again[0]).all())


def test_each_change_happens_as_often_as_it_should_and_apart_from_the_others():
    draws = Draws(np.arange(20_000))
    names = [*Exclude.model_fields]
    happened = np.stack([draws.happens(name, 0.3) for name in names])
    assert happened.mean(axis=1) == pytest.approx(0.3, abs=0.015)
    correlation = np.corrcoef(happened) - np.eye(len(names))
    assert np.abs(correlation).max() < 0.03
    assert not draws.happens("crop", 0.0).any()
    assert draws.happens("crop", 1.0).all()
    values = draws.between("turn", -3, 5)
    assert values.min() >= -3
    assert values.max() < 5
    assert np.histogram(values, bins=8, range=(-3, 5))[0] == pytest.approx(2500, abs=250)


def test_without_a_change_the_pixels_are_the_same():
    images = pictures()
    plain = Augment(**NOTHING)
    found = plain.apply(images, (48, 40), torch.arange(12))
    assert torch.equal(found.images_BHWC, images.float())
    assert set(found.did) == set(Exclude.model_fields)
    assert not any(which.any() for which in found.did.values())
    # What may happen to others does not blur those that it does not happen to.
    rare = Augment(crop=Crop(probability=1e-9), flip=Flip(probability=0), colour=Colour(probability=1e-9))
    assert float((rare.apply(images, (48, 40), torch.arange(12)).images_BHWC - images).abs().max()) < 1e-2


def test_the_default_is_a_light_crop_and_a_flip():
    did = Augment().apply(pictures(200), (32, 32), torch.arange(200)).did
    assert bool(did["crop"].all())
    assert 70 < int(did["flip"].sum()) < 130
    assert not any(which.any() for name, which in did.items() if name not in ("crop", "flip"))


def test_a_flip_is_exact():
    found = Augment(crop=Crop(probability=0), flip=Flip(probability=1)).apply(
        pictures(), (48, 40), torch.arange(12)
    )
    assert torch.allclose(found.images_BHWC, pictures().flip(2).float(), atol=1e-2)


def matrix(**given: object) -> torch.Tensor:
    """The matrix of one change of one picture."""
    plain: dict[str, object] = {
        "crop": np.array([[1.0], [1.0], [0.0], [0.0]]),
        "flip": np.array([False]),
        "turn": np.zeros(1),
        "scale": np.ones(1),
        "shear": np.zeros(1),
        "move": np.zeros((2, 1)),
        "corners": np.zeros((8, 1)),
        "aspect": 1.0,
    }
    return torch.from_numpy(homographies(**{**plain, **given}))  # type: ignore[arg-type]


def test_a_crop_takes_its_part():
    image = pictures(1, 40, 40).permute(0, 3, 1, 2).float()
    # The lower right quarter.
    found = warp(image, matrix(crop=np.array([[0.5], [0.5], [0.5], [0.5]])), (20, 20), 0.5)
    assert torch.allclose(found, image[:, :, 20:, 20:], atol=1e-2)


def test_a_quarter_turn_is_one_clockwise_of_the_picture_as_it_is_seen():
    image = pictures(1, 40, 40).permute(0, 3, 1, 2).float()
    found = warp(image, matrix(turn=np.array([math.pi / 2])), (40, 40), 1.0)
    assert torch.allclose(found, image.rot90(-1, (2, 3)), atol=1e-2)
    # Of a picture that is not square: a turned circle stays one.
    y, x = torch.meshgrid(torch.arange(60) - 29.5, torch.arange(30) - 14.5, indexing="ij")
    circle = ((x**2 + y**2 < 100) * 255.0)[None, None]
    turned = warp(circle, matrix(turn=np.array([0.9]), aspect=2.0), (60, 30), 1.0)
    assert float((turned - circle).abs().mean()) < 6
    wrong = warp(circle, matrix(turn=np.array([0.9]), aspect=1.0), (60, 30), 1.0)
    assert float((wrong - circle).abs().mean()) > 12


def test_scale_move_and_shear():
    point = torch.zeros(1, 1, 41, 41)
    point[0, 0, 20, 30] = 255.0

    def where(**given: object) -> tuple[float, float]:
        """The centre of the light, from the middle of the picture, in pixels: right and down."""
        found = warp(point, matrix(**given), (41, 41), 1.0)[0, 0]
        at = torch.arange(41) - 20.0
        return (
            float((found.sum(dim=0) * at).sum() / found.sum()),
            float((found.sum(dim=1) * at).sum() / found.sum()),
        )

    assert where() == pytest.approx((10, 0), abs=0.01)
    assert where(scale=np.array([1.5])) == pytest.approx((15, 0), abs=0.2)
    assert where(move=np.array([[-0.2], [0.4]])) == pytest.approx((10 - 4.1, 8.2), abs=0.1)
    assert where(flip=np.array([True])) == pytest.approx((-10, 0), abs=0.01)
    point = point.transpose(2, 3)
    assert where(shear=np.array([0.5])) == pytest.approx((5, 10), abs=0.1)


def test_corners_come_inwards():
    inwards = np.array([[0.1], [0.2], [0.0], [0.3], [0.25], [0.05], [0.15], [0.0]])
    (found,) = matrix(corners=inwards)
    expected = [(-0.9, -0.8), (1.0, -0.7), (0.75, 0.95), (-0.85, 1.0)]
    for corner, want in zip([(-1, -1), (1, -1), (1, 1), (-1, 1)], expected, strict=True):
        at = found @ torch.tensor([*corner, 1.0], dtype=torch.float64)
        assert (at[:2] / at[2]).tolist() == pytest.approx(want)


def test_a_far_larger_picture_is_averaged_down():
    noise = torch.randint(0, 256, (4, 256, 256, 3), generator=torch.Generator().manual_seed(0)).to(
        torch.uint8
    )
    found = Augment(**NOTHING).apply(noise, (32, 32), torch.arange(4)).images_BHWC
    expected = torch.nn.functional.interpolate(noise.permute(0, 3, 1, 2).float(), (32, 32), mode="area")
    assert torch.allclose(found, expected.permute(0, 2, 3, 1), atol=1e-2)


def test_colours_by_hand():
    image = torch.tensor([[[[100.0, 50.0]], [[150.0, 50.0]], [[200.0, 50.0]]]])

    def change(**given: float) -> torch.Tensor:
        plain = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0, **given}
        return recolour(image, *colour_matrices(**{k: np.array([v]) for k, v in plain.items()}))

    grey = 0.299 * 100 + 0.587 * 150 + 0.114 * 200
    assert torch.allclose(change(), image, atol=1e-3)
    assert torch.allclose(change(brightness=1.2), image * 1.2, atol=1e-2)
    assert torch.allclose(change(brightness=2.0), (image * 2).clamp(max=255), atol=1e-2)
    assert torch.allclose(change(saturation=0.0)[0, :, 0, 0], torch.full((3,), grey), atol=1e-2)
    mean = (grey + 50) / 2
    assert torch.allclose(change(contrast=0.5), image * 0.5 + mean * 0.5, atol=1e-2)
    assert torch.allclose(change(contrast=0.0, brightness=1.1), torch.full_like(image, mean * 1.1), atol=1e-2)
    shifted = change(hue=0.5)[0, :, 0]
    assert torch.allclose(shifted[:, 1], torch.full((3,), 50.0), atol=0.1), "grey has no hue"
    luma = torch.tensor([0.299, 0.587, 0.114])
    assert float(shifted[:, 0] @ luma) == pytest.approx(grey, abs=0.1)
    assert shifted[2, 0] < shifted[0, 0], "what was blue is now of the opposite colour"
    assert torch.allclose(change(hue=1.0), image, atol=1e-2)


def test_a_blur_smooths_and_keeps_the_mean():
    image = torch.zeros(2, 3, 31, 31)
    image[:, :, 15, 15] = 255.0
    found = blur(image, torch.tensor([1.0, 2.0], dtype=torch.float64), 2.0)
    assert found.sum(dim=(2, 3)).flatten().tolist() == pytest.approx([255.0] * 6, rel=1e-3)
    at = torch.arange(31) - 15.0
    spread = ((found.sum(dim=2) * at**2).sum(dim=2) / 255)[:, 0]
    assert spread.tolist() == pytest.approx([1.0, 4.0], rel=0.05)
    small = torch.rand(1, 3, 2, 2)
    assert blur(small, torch.tensor([5.0]), 5.0).shape == (1, 3, 2, 2)


def test_an_erased_rectangle_has_one_colour_and_its_size():
    image = pictures(40, 40, 40)
    option = Augment(**NOTHING, erase=Erase(probability=0.5, scale=(0.1, 0.1), ratio=(1.0, 1.0)))
    found = option.apply(image, (40, 40), torch.arange(40))
    changed = (found.images_BHWC != image.float()).any(dim=3)
    which = found.did["erase"]
    assert 8 < int(which.sum()) < 32
    assert not bool(changed[~which].any())
    for row in torch.nonzero(which).flatten().tolist():
        inside = found.images_BHWC[row][changed[row]]
        assert len(torch.unique(inside, dim=0)) == 1
        assert 160 <= int(changed[row].sum()) <= 169, "a tenth of 1,600 pixels, as 13 x 13"


def test_values_stay_within_bytes_and_edges_are_continued():
    white = torch.full((16, 40, 40, 3), 255, dtype=torch.uint8)
    hard = Augment(
        rotate=Rotate(probability=1, degrees=45),
        affine=Affine(probability=1, translate=0.4, scale=(0.5, 0.5)),
    )
    assert float(hard.apply(white, (32, 32), torch.arange(16)).images_BHWC.min()) > 254.9, (
        "nothing turns black"
    )
    bright = ALL.model_copy(update={"colour": Colour(probability=1, brightness=0.9, contrast=0.9, hue=0.5)})
    found = bright.apply(pictures(), (32, 32), torch.arange(12)).images_BHWC
    assert float(found.min()) >= 0
    assert float(found.max()) <= 255


def test_labels_that_a_change_makes_unsure_are_left_out():
    option = Augment(
        colour=Colour(probability=0.5, hue=0.2),
        exclude=Exclude(flip=("k/side",), hue=("colour",)),
    )
    count = 64
    category = torch.arange(count) % 3 - 1
    found = option.apply(pictures(count), (16, 16), torch.arange(count))
    labels = torch.ones(count, 3, dtype=torch.long)
    masked = option.masked(labels, found.did, category, TAXONOMY)
    flipped, hue = found.did["flip"], found.did["hue"]
    assert flipped.any()
    assert hue.any()
    assert not torch.equal(flipped, hue)
    k, m = category == 0, category == 1
    assert torch.equal(masked[:, 0] == -1, (flipped & k) | (hue & m))
    assert torch.equal(masked[:, 1] == -1, hue & k), "m/side may be flipped: only k/side is excluded"
    assert bool((masked[:, 2] == 1).all())
    assert bool((labels == 1).all()), "the labels that came in are as they were"
    assert not option.excluded({}, torch.full((4,), -1), TAXONOMY).any()


def test_an_excluded_attribute_that_nobody_has_is_named():
    Augment(exclude=Exclude(flip=("side", "m/colour"))).check(TAXONOMY)
    with pytest.raises(
        UsageError, match=r"augment\.exclude\.hue: no category has the attribute 'color'.*colour"
    ):
        Augment(exclude=Exclude(hue=("color",))).check(TAXONOMY)


def test_options_are_values_and_say_what_they_refuse():
    table = {"crop": {"scale": [0.5, 1.0]}, "exclude": {"flip": ["side"]}, "colour": {"probability": 0.8}}
    option = Augment.model_validate(table)
    assert hash(option) == hash(Augment.model_validate(option.table()))
    assert Augment.model_validate(option.table()) == option
    assert option.table()["crop"]["scale"] == (0.5, 1.0)
    assert option.table()["flip"] == {"probability": 0.5}, "every default is recorded"
    with pytest.raises(ValidationError, match="from the smaller to the larger"):
        Crop(scale=(1.0, 0.5))
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        Flip(probability=1.5)
    with pytest.raises(ValidationError, match="Extra inputs"):
        Augment.model_validate({"zoom": {}})


def test_pictures_and_seeds_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match=r"\[B, H, W, 3\], not \[2, 3, 8, 8\]"):
        ALL.apply(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), (8, 8), torch.arange(2))
    with pytest.raises(UsageError, match="2 pictures need a seed each, not 3"):
        ALL.apply(pictures(2), (8, 8), torch.arange(3))


CATEGORY = torch.tensor([0, 1, 0, 0, 1, 2, 0, 1])
LABELS = torch.tensor([[0], [1], [0], [-1], [0], [1], [1], [0]])


def levels(count: int = 8) -> torch.Tensor:
    """Pictures of one grey each: the picture's number times 10."""
    return (torch.arange(count)[:, None, None, None] * 10).expand(count, 20, 20, 3).to(torch.uint8)


@pytest.mark.parametrize("options", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_mixing_stays_within_a_category_and_says_what_it_did(options: dict[str, float]):
    seen = set()
    for seed in range(30):
        images, mixed = mix(
            levels(), CATEGORY, LABELS, **{"mixup": 0.0, "cutmix": 0.0, **options}, probability=0.8, seed=seed
        )
        assert images.dtype == torch.float32
        assert torch.equal(CATEGORY[mixed.partner_B], CATEGORY)
        alone = mixed.partner_B == torch.arange(8)
        assert bool((mixed.share_B[alone] == 1).all())
        assert bool(alone[5]), "the only one of its category"
        assert bool(alone[3]), "has no label"
        assert 3 not in mixed.partner_B[~alone].tolist(), "a picture without labels is no partner"
        share = mixed.share_B[:, None, None, None]
        expected = share * levels().float() + (1 - share) * levels()[mixed.partner_B].float()
        assert torch.allclose(images.mean(dim=(1, 2, 3)), expected.mean(dim=(1, 2, 3)), atol=1e-3)
        flat = images.flatten(1)
        seen |= {
            ("cut" if int(flat[row].unique().numel()) == 2 else "up", row)
            for row in torch.nonzero(~alone & (mixed.share_B < 1)).flatten().tolist()
        }
    rows = {row for _, row in seen}
    assert rows == {0, 1, 2, 4, 6, 7}
    wanted = {name for name, key in (("up", "mixup"), ("cut", "cutmix")) if key in options}
    assert wanted <= {kind for kind, _ in seen}


def test_mixing_is_drawn_from_the_seed():
    images = levels().float()

    def once(seed: int) -> torch.Tensor:
        return mix(images, CATEGORY, LABELS, mixup=1.0, cutmix=1.0, probability=1.0, seed=seed)[0]

    assert torch.equal(once(4), once(4))
    assert not torch.equal(once(4), once(5))
    assert not torch.equal(once(4), images)
    assert torch.equal(images, levels().float()), "what came in is not written to"


def test_shares_follow_the_beta_distribution():
    labels, category = torch.zeros(4000, 1, dtype=torch.long), torch.zeros(4000, dtype=torch.long)
    images = torch.zeros(4000, 1, 1, 3)
    _, mixed = mix(images, category, labels, mixup=0.4, cutmix=0.0, probability=1.0, seed=1)
    assert float(mixed.share_B.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(mixed.share_B.var()) == pytest.approx(1 / (4 * (2 * 0.4 + 1)), abs=0.01)
    assert len(torch.unique(mixed.partner_B)) == 4000, "everyone is one partner"
    assert bool((mixed.partner_B != torch.arange(4000)).all())


def test_mixing_is_off_by_default_and_fades():
    images, nothing = Mixing().apply(levels(), CATEGORY, LABELS, seed=0)
    assert nothing is None
    assert torch.equal(images, levels())
    fading = Mixing(mixup=1.0, probability=1.0, fading=True)
    assert fading.apply(levels(), CATEGORY, LABELS, seed=0, progress=1.0)[1] is None
    labels, category = torch.zeros(2000, 1, dtype=torch.long), torch.zeros(2000, dtype=torch.long)
    ends = []
    for progress in (0.0, 0.9):
        _, mixed = fading.apply(torch.zeros(2000, 1, 1, 3), category, labels, seed=0, progress=progress)
        assert mixed is not None
        ends.append(float(torch.minimum(mixed.share_B, 1 - mixed.share_B).mean()))
    assert ends[1] < 0.4 * ends[0], "late in training pictures are nearly as they are"
    with pytest.raises(UsageError, match="no alpha is negative"):
        mix(levels(), CATEGORY, LABELS, mixup=-1.0, cutmix=0.0, probability=1.0, seed=0)
