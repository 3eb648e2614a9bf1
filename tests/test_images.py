import contextlib
import io
import os
import struct
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps

import hostile
from shelfwise.data.headers import sniff
from shelfwise.data.images import Photo, content_digest, open_image, pixels, read_bytes
from shelfwise.errors import ImageError, UsageError


@pytest.fixture(scope="module")
def hostile_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str | None]]:
    directory = tmp_path_factory.mktemp("hostile") / "images"
    return directory, hostile.write_hostile(directory)


def opened(name: str, **options: int) -> Photo:
    return open_image(hostile.contents()[name][0], **options)


def array(photo: Photo) -> np.ndarray:
    return np.asarray(photo.image).astype(int)


def corners(photo: Photo) -> str:
    """Name the colours of the corners, clockwise from top left."""
    image, names = photo.image, {(230, 20, 20): "r", (20, 200, 20): "g", (20, 20, 230): "b", (255,) * 3: "w"}
    w, h = image.width - 3, image.height - 3
    found = ""
    for point in ((2, 2), (w, 2), (w, h), (2, h)):
        pixel = np.array(image.getpixel(point))
        found += min(names.items(), key=lambda item: np.abs(pixel - item[0]).sum())[1]
    return found


def test_every_hostile_file_is_read_or_is_the_right_error(
    hostile_files: tuple[Path, dict[str, str | None]],
) -> None:
    directory, expected = hostile_files
    assert len(expected) >= 30
    wrong = []
    for name, kind in expected.items():
        got, named = None, True
        try:
            photo = open_image(directory / name)
            assert photo.image.mode == "RGB", name
            assert getattr(photo.image, "fp", None) is None, name
            assert (photo.width, photo.height) == photo.image.size, name
            assert "truncated" not in photo.notes
        except ImageError as error:
            got = error.kind
            named = name in str(error)
        if not named or (got != kind and kind != "outside"):
            wrong.append((name, kind, got))
    assert not wrong


def test_content_decides_and_the_name_does_not() -> None:
    assert opened("really_a_png.jpg").format == "PNG"
    assert opened("no_ending").format == "JPEG"
    for form in ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF"):
        data = hostile.encoded(hostile.picture(), form)
        assert sniff(data) == form
        assert corners(open_image(data)) == "rgwb"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("target", [None, 8])
def test_orientation_is_applied(orientation: int, form: str, target: int | None) -> None:
    image = hostile.picture()
    data = hostile.encoded(image, form, exif=hostile.exif(orientation))
    right = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    photo = open_image(data, target=target)
    assert (photo.width, photo.height) == right.size
    assert (photo.width, photo.height) == (image.size if orientation < 5 else image.size[::-1])
    turned = {1: "rgwb", 2: "grbw", 3: "wbrg", 4: "bwgr", 5: "rbwg", 6: "brgw", 7: "wgrb", 8: "gwbr"}
    assert corners(photo) == turned[orientation]


@pytest.mark.parametrize("name", ["deep_grey.png", "deep_grey.tiff", "float_unit.tiff", "float_255.tiff"])
def test_deep_grey_is_scaled_and_not_clipped(name: str) -> None:
    photo = opened(name)
    right = np.linspace(0, 255, hostile.SIZE[0])
    assert np.abs(array(photo)[0, :, 0] - right).max() <= 1
    assert photo.notes == ("sixteen_bit",)


def test_deep_colour_is_scaled_and_deep_alpha_is_laid_on_white() -> None:
    ramp = np.linspace(0, 255, hostile.SIZE[0])
    photo = opened("deep_rgb.png")
    assert np.abs(array(photo)[3] - np.stack([ramp, ramp[::-1], ramp], -1)).max() <= 1
    assert photo.notes == ("sixteen_bit",)
    half = array(opened("deep_rgba.png"))
    assert (half[:, 0] == 255).all(), "where alpha is 0 the picture is white"
    assert np.abs(half[0, -1] - [255, 0, 255]).max() <= 1, "where alpha is full it is the colour"


def test_inverted_deep_tiffs_come_out_right() -> None:
    ramp = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (8, 1))
    data = bytearray(hostile.encoded(Image.fromarray(ramp), "TIFF"))
    at = data.find(struct.pack("<HHI", 262, 3, 1))
    data[at + 8 : at + 10] = struct.pack("<H", 0)
    assert np.abs(array(open_image(bytes(data)))[0, :, 0] - np.linspace(255, 0, 64)).max() <= 1


@pytest.mark.parametrize(
    "name",
    [
        "transparent.png",
        "transparent.webp",
        "transparent.avif",
        "transparent.tiff",
        "transparent_palette.png",
        "transparent_palette.gif",
        "grey_alpha.png",
    ],
)
def test_transparency_is_white_and_not_the_hidden_colour(name: str) -> None:
    photo = opened(name)
    assert "alpha" in photo.notes
    assert (array(photo)[0, 0] >= 253).all()
    centre = array(photo)[24, 32]
    assert centre.max() < 240
    assert centre[1] < 120


def test_a_transparent_colour_is_white_and_the_rest_is_untouched() -> None:
    photo = opened("transparent_colour.png")
    assert corners(photo) == "wgwb"


def test_an_opaque_alpha_channel_is_not_noted() -> None:
    assert open_image(hostile.encoded(hostile.picture().convert("RGBA"), "PNG")).notes == ()


@pytest.mark.parametrize(
    "name", ["cmyk.jpg", "cmyk.tiff", "ycbcr.tiff", "lab.tiff", "lzw.tiff", "palette.png", "pages.tiff"]
)
def test_other_modes_show_the_same_picture(name: str) -> None:
    photo = opened(name)
    assert corners(photo) == "rgwb"
    assert np.abs(array(photo) - np.asarray(hostile.picture()).astype(int)).mean() < 25
    assert ("cmyk" in photo.notes) == name.startswith("cmyk")


@pytest.mark.parametrize("form", ["gif", "webp", "png", "avif"])
def test_the_first_frame_is_used_and_noted(form: str) -> None:
    photo = opened(f"animated.{form}")
    assert corners(photo) == "rgwb"
    assert photo.notes == ("animated",)
    assert photo.frames >= 2
    assert opened("pages.tiff").notes == ("pages",)


def test_a_profile_is_converted_and_a_broken_one_is_a_note() -> None:
    for name in ("wide_gamut.jpg", "wide_gamut.png"):
        photo = opened(name)
        assert photo.notes == ()
        red = photo.image.getpixel((2, 2))
        assert isinstance(red, tuple)
        assert red[1] > 180, "the profile of this file swaps red and green"
        assert red[0] < 60
    for name in ("broken_profile.jpg", "broken_profile.png", "grey_profile_on_colour.jpg"):
        photo = opened(name)
        assert photo.notes == ("broken_profile",)
        assert corners(photo) == "rgwb"


def test_an_srgb_profile_changes_nothing() -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    plain, with_profile = (hostile.encoded(hostile.picture(), "PNG", icc_profile=p) for p in (None, profile))
    assert (array(open_image(plain)) == array(open_image(with_profile))).all()


def test_the_pixel_cap_is_read_from_the_header_before_decoding() -> None:
    import time

    start = time.perf_counter()
    for name in ("bomb_144_megapixels.png", "huge_header.jpg", "huge_header.webp", "huge_frame.gif"):
        with pytest.raises(ImageError, match="more than the limit"):
            opened(name)
    assert time.perf_counter() - start < 0.5
    with pytest.raises(ImageError, match="more than the limit"):
        opened("no_ending", max_pixels=64 * 48 - 1)
    assert opened("no_ending", max_pixels=64 * 48).width == 64


def test_a_raised_cap_gives_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    before = list(warnings.filters)
    for form in ("PNG", "GIF", "TIFF", "BMP"):
        assert open_image(hostile.encoded(hostile.picture(), form)).width == 64
    assert list(warnings.filters) == before


def test_cut_pictures_are_never_completed_in_grey(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(ImageError) as caught:
        opened("cut_half.jpg")
    assert caught.value.kind == "truncated"
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True, "the caller's setting is put back"


def test_threads_leave_the_warning_filters_as_they_were() -> None:
    before = list(warnings.filters)
    data = hostile.contents()["no_ending"][0]

    def work() -> None:
        for _ in range(30):
            open_image(data, target=16)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before


def test_draft_keeps_the_size_and_nearly_the_pixels() -> None:
    data = hostile.encoded(hostile.picture(1600, 1200), "JPEG", quality=90)
    full, fast = open_image(data), open_image(data, target=224)
    assert (fast.width, fast.height) == (1600, 1200)
    assert fast.image.size == (800, 600), "both sides stay at least twice the target"
    gap = np.abs(pixels(full, (224, 224)).astype(int) - pixels(fast, (224, 224)))
    assert gap.mean() < 1.0


def test_pixels_fit() -> None:
    photo = open_image(hostile.encoded(hostile.picture(90, 60), "PNG"))
    for fit in ("stretch", "crop", "pad"):
        one = pixels(photo, (40, 30), fit=fit)
        assert one.shape == (40, 30, 3)
        assert one.dtype == np.uint8
        assert (one == pixels(photo, (40, 30), fit=fit)).all()
    padded = pixels(photo, (40, 30), fit="pad").astype(int)
    assert (padded[:10] == 255).all()
    assert (padded[-10:] == 255).all()
    assert abs(padded[12, 1] - [230, 20, 20]).max() < 8
    flat = Image.new("RGB", (90, 60), (255, 0, 0))
    flat.paste((0, 0, 255), (25, 0, 65, 60))
    middle = open_image(hostile.encoded(flat, "PNG"))
    assert (pixels(middle, (40, 20), fit="crop")[..., 2] == 255).all(), "the sides are cut off"
    assert (pixels(middle, (40, 20), fit="stretch")[:, 0, 0] == 255).all()
    assert (pixels(middle, (20, 20), crop_fraction=0.4)[..., 2] == 255).all()
    for wrong in ({"fit": "squeeze"}, {"resample": "best"}, {"crop_fraction": 0.0}, {"crop_fraction": 1.1}):
        with pytest.raises(UsageError):
            pixels(photo, (8, 8), **wrong)
    with pytest.raises(UsageError):
        pixels(photo, (0, 8))


@pytest.mark.parametrize("size", [(1, 1), (4000, 1), (1, 4000), (3, 2)])
def test_odd_shapes_become_pixels(size: tuple[int, int]) -> None:
    photo = open_image(hostile.encoded(Image.new("RGB", size, (200, 9, 9)), "JPEG"), target=32)
    assert pixels(photo, (32, 32)).mean(axis=(0, 1)).round().tolist()[0] > 190
    for fit in ("crop", "pad"):
        assert pixels(photo, (32, 32), fit=fit).shape == (32, 32, 3)


def test_reading_never_blocks_and_respects_the_byte_cap(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageError, match="pipe"):
        read_bytes(tmp_path / "pipe")
    for device in ("/dev/zero", "/dev/null"):
        with pytest.raises(ImageError, match="device"):
            read_bytes(Path(device))
    (tmp_path / "big").write_bytes(bytes(1001))
    with pytest.raises(ImageError) as caught:
        read_bytes(tmp_path / "big", max_bytes=1000)
    assert caught.value.kind == "too_large"
    for name in ("a\0b", "x" * 300, "nothing/below"):
        with pytest.raises(ImageError):
            read_bytes(tmp_path / name)


def test_a_file_without_permission_is_unreadable(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    (tmp_path / "closed.jpg").write_bytes(b"x")
    (tmp_path / "closed.jpg").chmod(0)
    with pytest.raises(ImageError, match="Permission"):
        open_image(tmp_path / "closed.jpg")


def test_digest_names_content() -> None:
    assert content_digest(b"a") == content_digest(b"a") != content_digest(b"b")
    assert len(content_digest(b"")) == 16


SEEDS = [
    *(
        "no_ending",
        "cmyk.jpg",
        "turned_6.jpg",
        "transparent.png",
        "deep_rgb.png",
        "palette.png",
        "one_bit.png",
    ),
    *("wide_gamut.png", "animated.gif", "transparent_palette.gif", "animated.webp", "animated.png"),
    *("transparent.avif", "pages.tiff", "lzw.tiff", "float_unit.tiff", "lab.tiff", "cmyk.tiff"),
    *("deep_grey.tiff", "transparent.tiff"),
]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(
    name=st.sampled_from(SEEDS),
    edits=st.lists(
        st.tuples(st.floats(0, 0.999), st.integers(0, 255), st.booleans()), min_size=1, max_size=6
    ),
    cut=st.floats(0.02, 1),
    target=st.sampled_from([None, 16]),
)
def test_damaged_bytes_give_a_photo_or_an_image_error(
    name: str, edits: list[tuple[float, int, bool]], cut: float, target: int | None
) -> None:
    data = bytearray(hostile.contents()[name][0])
    for place, value, early in edits:
        data[int(place * (min(len(data), 200) if early else len(data)))] = value
    with contextlib.suppress(ImageError):
        assert open_image(bytes(data[: int(len(data) * cut)]), target=target).image.mode == "RGB"
