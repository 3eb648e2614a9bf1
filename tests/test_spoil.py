"""Spoilt training pictures: each by its own seed, darker, tinted, noisy or compressed, and nothing by default."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from shelfwise.data.augment import Augment, Crop, Exclude, Flip
from shelfwise.data.spoil import Cast, Dark, Jpeg, Noise, Spoil
from shelfwise.taxonomy import Choice, Taxonomy

SIZE = (24, 16)
PLAIN = {"crop": Crop(probability=0), "flip": Flip(probability=0)}


def pictures(count: int = 6) -> torch.Tensor:
    """Smooth pictures of many colours, none near black or white."""
    draw = torch.Generator().manual_seed(3)
    small = torch.randint(60, 200, (count, 3, 4, 3), generator=draw).float()
    large = torch.nn.functional.interpolate(small, size=SIZE, mode="bilinear", align_corners=True)
    return large.permute(0, 2, 3, 1)[..., [0, 1, 2]].round().byte()


def spoilt(spoil: Spoil, images: torch.Tensor, first: int = 0) -> torch.Tensor:
    seeds = torch.arange(first, first + len(images))
    return Augment(spoil=spoil, **PLAIN).apply(images, SIZE, seeds).images_BHWC


def test_nothing_happens_by_default():
    images = pictures()
    assert torch.equal(spoilt(Spoil(), images), images.float())


@pytest.mark.parametrize("light", [0.3, 0.6])
def test_dark_leaves_a_share_of_the_light(light: float):
    images = pictures()
    found = spoilt(Spoil(dark=Dark(probability=1, brightness=(light, light))), images)
    torch.testing.assert_close(found, images.float() * light, rtol=1e-4, atol=1e-3)


def test_a_cast_scales_each_channel_within_its_strength():
    images = pictures(12)
    gain = spoilt(Spoil(cast=Cast(probability=1, strength=0.2)), images) / images.float()
    per_channel = gain.mean(dim=(1, 2))
    torch.testing.assert_close(gain, per_channel[:, None, None].expand_as(gain), rtol=1e-3, atol=1e-3)
    assert 1 / 1.2 - 1e-3 <= float(per_channel.min()) < 0.97
    assert 1.03 < float(per_channel.max()) <= 1.2 + 1e-3
    assert float(per_channel.std(dim=1).min()) > 1e-3, "a tint, not another brightness"


def test_noise_has_the_deviation_asked_for_and_is_of_every_pixel():
    images = torch.full((8, *SIZE, 3), 128, dtype=torch.uint8)
    noise = spoilt(Spoil(noise=Noise(probability=1, sigma=(9, 9))), images) - 128
    assert float(noise.std()) == pytest.approx(9, rel=0.05)
    assert abs(float(noise.mean())) < 0.5
    assert not torch.equal(noise[0], noise[1])


def test_compression_is_that_of_the_quality():
    images = pictures()
    lost = [
        float((spoilt(Spoil(jpeg=Jpeg(probability=1, quality=(q, q))), images) - images.float()).abs().mean())
        for q in (5, 40, 95)
    ]
    assert lost[0] > 2 * lost[1] > 2 * lost[2] > 0


def test_a_picture_is_spoilt_by_its_seed_alone():
    some = Spoil(
        dark=Dark(probability=0.5),
        cast=Cast(probability=0.5),
        noise=Noise(probability=0.5),
        jpeg=Jpeg(probability=0.5),
    )
    images = pictures(8)
    whole = spoilt(some, images)
    alone = torch.cat([spoilt(some, images[at : at + 1], first=at) for at in range(8)])
    assert torch.equal(whole, alone)
    assert not torch.equal(whole, spoilt(some, images, first=100))
    assert bool((whole != images).flatten(1).any(dim=1).any())
    assert bool((whole >= 0).all() & (whole <= 255).all())


def test_labels_that_a_tint_makes_unsure_are_left_out():
    taxonomy = Taxonomy({"k": (Choice("colour", ("red", "blue")), Choice("neck", ("v", "round")))})
    augment = Augment(spoil=Spoil(cast=Cast(probability=0.5)), exclude=Exclude(cast=("colour",)), **PLAIN)
    did = augment.apply(pictures(40), SIZE, np.arange(40)).did
    labels = augment.masked(
        torch.ones(40, 2, dtype=torch.long), did, torch.zeros(40, dtype=torch.long), taxonomy
    )
    assert 5 < int(did["cast"].sum()) < 35
    assert torch.equal(labels[:, 0] < 0, did["cast"])
    assert bool((labels[:, 1] == 1).all())


@pytest.mark.parametrize(
    ("kind", "options"),
    [(Dark, {"brightness": (0.5, 1.5)}), (Jpeg, {"quality": (60, 20)}), (Noise, {"sigma": (0, 3)})],
)
def test_impossible_options_are_refused(kind: type, options: dict[str, object]):
    with pytest.raises(ValidationError):
        kind(**options)
