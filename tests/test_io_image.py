"""Pictures in and out: every kind of file reads alike, broken ones fail in one line, fit and unfit are inverse."""

import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features

from codeczoo.core.errors import FormatError, InputError
from codeczoo.io import image
from codeczoo.io.fit import Fit

NO_AVIF = pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
QUICK = settings(max_examples=60, deadline=None)


def pixels(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(pixels(height, width, seed)).permute(2, 0, 1)


def smooth(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 255 // height, columns * 255 // width, (rows + columns) % 64 + 96], -1).astype(np.uint8)


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def as_array(data: bytes) -> np.ndarray:
    return image.read(data).permute(1, 2, 0).numpy().astype(int)


@pytest.mark.parametrize(
    ("kind", "options", "off"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("JPEG", {"quality": 95, "subsampling": 0}, 4),
        ("GIF", {}, 40),
        pytest.param("AVIF", {"quality": 95}, 8, marks=NO_AVIF),
    ],
)
def test_every_kind_of_file(kind: str, options: dict, off: int, tmp_path: Path) -> None:
    want = smooth(40, 30)
    path = tmp_path / "wrong_suffix.dat"
    path.write_bytes(saved(Image.fromarray(want), kind, **options))
    got = image.read(path)
    assert (got.dtype, got.shape) == (torch.uint8, (3, 40, 30))
    assert np.abs(got.permute(1, 2, 0).numpy().astype(int) - want).mean() <= off


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_upright(orientation: int, kind: str) -> None:
    want = np.zeros((48, 32, 3), np.uint8)
    want[:24, :16], want[24:, :16], want[:24, 16:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    undo = {2: (0, True), 3: (2, False), 4: (2, True), 5: (3, True), 6: (1, False), 7: (1, True), 8: (3, False)}
    turns, mirrored = undo.get(orientation, (0, False))
    stored = np.rot90(want, turns)
    stored = stored[:, ::-1] if mirrored else stored
    exif = Image.Exif()
    exif[274] = orientation
    data = saved(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif.tobytes())
    assert np.abs(as_array(data) - want).mean() < 12


def test_sixteen_bit_grey_palette_alpha_cmyk() -> None:
    deep = (np.arange(65536, dtype=np.uint32).reshape(256, 256) & 0xFFFF).astype(np.uint16)
    for kind in ("PNG", "TIFF"):
        grey = as_array(saved(Image.fromarray(deep), kind))
        assert (grey == (deep >> 8)[..., None]).all()
        assert (grey.min(), grey.max()) == (0, 255)
    colour = smooth(20, 20)
    grey = Image.fromarray(colour).convert("L")
    assert (as_array(saved(grey, "PNG")) == np.asarray(grey)[..., None]).all()
    palette = Image.fromarray(colour).quantize(16)
    assert (as_array(saved(palette, "PNG")) == np.asarray(palette.convert("RGB"))).all()
    assert set(np.unique(as_array(saved(grey.convert("1"), "TIFF")))) == {0, 255}
    assert np.abs(as_array(saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG")) - [255, 0, 0]).max() < 4


def test_transparency_lies_over_white() -> None:
    clear = np.zeros((4, 4, 4), np.uint8)
    clear[2:] = (10, 20, 30, 255)
    for kind in ("PNG", "WEBP", "TIFF"):
        got = as_array(saved(Image.fromarray(clear), kind, **({"lossless": True} if kind == "WEBP" else {})))
        assert (got[:2] == 255).all()
        assert (got[2:] == [10, 20, 30]).all()
    half = np.full((2, 2, 2), 128, np.uint8)
    half[..., 0] = 0
    assert np.abs(as_array(saved(Image.fromarray(half, "LA"), "PNG")) - 127).max() <= 1
    keyed = Image.fromarray(np.zeros((2, 2), np.uint8)).convert("P")
    assert (as_array(saved(keyed, "GIF", transparency=0)) == 255).all()


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime")]
    for kind in ("GIF", "PNG", "WEBP", "TIFF"):
        data = saved(frames[0], kind, save_all=True, append_images=frames[1:])
        assert np.abs(as_array(data) - [255, 0, 0]).max() <= 3


@QUICK
@given(st.sampled_from(["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"]), st.data())
def test_broken_files_fail_in_one_line(kind: str, draw: st.DataObject) -> None:
    data = saved(Image.fromarray(smooth(40, 30)), kind)
    at = draw.draw(st.integers(0, len(data) - 1))
    cut = draw.draw(st.booleans())
    damaged = data[:at] if cut else data[:at] + draw.draw(st.binary(min_size=4, max_size=4)) + data[at + 4 :]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            got = image.read(damaged)
        except InputError as error:
            assert "\n" not in str(error)
        else:
            assert got.dtype == torch.uint8
            assert got.shape[0] == 3
    if cut and kind in ("PNG", "JPEG", "WEBP", "BMP") and at < len(data) // 2:
        with pytest.raises(InputError):
            image.read(damaged)


def test_errors_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with pytest.raises(InputError, match=f"no such file: {path}"):
        image.read(path)
    for content in (b"", b"hello", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"{path} is not an image.*PNG"):
            image.read(path)
    path.write_bytes(saved(Image.fromarray(np.zeros((2, 2), np.float32)), "TIFF"))
    with pytest.raises(InputError, match="8 and 16 bit"):
        image.read(path)
    with pytest.raises(InputError, match=str(tmp_path)):
        image.read(tmp_path)


def test_decompression_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(InputError, match="too large"):
        image.read(saved(Image.new("RGB", (30, 30)), "PNG"))


def test_write(tmp_path: Path) -> None:
    x = picture(20, 30).float() / 255
    image.write(tmp_path / "deep" / "a.PNG", x)
    assert torch.equal(image.read(tmp_path / "deep" / "a.PNG"), picture(20, 30))
    gentle = torch.from_numpy(smooth(64, 64)).permute(2, 0, 1)
    for suffix, kind in ((".jpg", "JPEG"), (".jpeg", "JPEG"), (".webp", "WEBP")):
        image.write(tmp_path / f"a{suffix}", gentle.float() / 255)
        assert Image.open(tmp_path / f"a{suffix}").format == kind
        assert (image.read(tmp_path / f"a{suffix}").float() - gentle.float()).abs().mean() < 3
    image.write(tmp_path / "range.png", torch.tensor([-1.0, 0.5, 2.0]).view(3, 1, 1))
    assert image.read(tmp_path / "range.png").flatten().tolist() == [0, 128, 255]


def test_write_refuses(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.png, \.jpg"):
        image.write(tmp_path / "a.gif", torch.zeros(3, 4, 4))
    for wrong in (torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 4), torch.zeros(3, 4, 4, dtype=torch.uint8)):
        with pytest.raises(InputError, match="float"):
            image.write(tmp_path / "a.png", wrong)
    for suffix, width in ((".webp", 20_000), (".jpg", 70_000)):
        with pytest.raises(InputError, match="cannot write"):
            image.write(tmp_path / f"a{suffix}", torch.zeros(3, 1, width))
    assert not list(tmp_path.iterdir())


@QUICK
@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 70), st.integers(1, 70))
def test_resize_is_fixed(height: int, width: int, h: int, w: int) -> None:
    x = picture(height, width)
    got = image.resize(x, (h, w))
    assert (got.dtype, got.shape) == (torch.uint8, (3, h, w))
    assert torch.equal(got, image.resize(x.contiguous(), (h, w)))
    want = Image.fromarray(x.permute(1, 2, 0).numpy()).resize((w, h), Image.Resampling.BICUBIC)
    assert np.array_equal(got.permute(1, 2, 0).numpy(), np.asarray(want))
    assert torch.equal(image.resize(x, (height, width)), x)
    assert (image.resize(torch.full_like(x, 77), (h, w)) == 77).all()


SIDE = st.one_of(st.integers(1, 90), st.sampled_from([1, 2, 31, 32, 33, 300]))
CODEC = st.tuples(st.integers(1, 48), st.integers(1, 48))


@settings(max_examples=70, deadline=None)
@given(SIDE, SIDE, CODEC)
def test_unchanged_tiles_give_the_picture_back(height: int, width: int, size: tuple[int, int]) -> None:
    x = picture(height, width)
    tiles, plan = image.fit(x, size, "tile")
    assert tiles.shape[1:] == (3, *size)
    assert (image.unfit(tiles, plan) * 255 - x).abs().max() <= 0.01


@QUICK
@given(SIDE, SIDE, CODEC, st.sampled_from(list(image.MODES)))
def test_sizes_come_back(height: int, width: int, size: tuple[int, int], mode: str) -> None:
    x, plan = image.fit(picture(height, width), size, mode)
    assert x.shape[1:] == (3, *size)
    assert (x.min() >= 0) and (x.max() <= 1)
    plan = Fit.from_dict(plan.to_dict())
    back = image.unfit(x, plan)
    assert (back.min() >= 0) and (back.max() <= 1)
    if mode == "crop":
        assert back.shape[1] <= height
        assert back.shape[2] <= width
        assert back.shape[1] == height or back.shape[2] == width
    else:
        assert back.shape == (3, height, width)


@QUICK
@given(st.integers(1, 32), st.booleans())
def test_pad_is_the_identity_without_a_resize(side: int, tall: bool) -> None:
    x = picture(32, side) if tall else picture(side, 32)
    padded, plan = image.fit(x, (32, 32), "pad")
    assert torch.equal(padded[0, :, : x.shape[1], : x.shape[2]] * 255, x.float())
    assert (padded[0, :, -1, -1] * 255 == x[:, -1, -1]).all()
    assert (image.unfit(padded, plan) * 255 - x).abs().max() <= 0.01


def test_crop_keeps_the_centre() -> None:
    x = picture(32, 80)
    cropped, plan = image.fit(x, (32, 32), "crop")
    assert torch.equal(cropped[0] * 255, x[:, :, 24:56].float())
    assert image.unfit(cropped, plan).shape == (3, 32, 32)
    assert image.unfit(*image.fit(picture(64, 160), (32, 32), "crop")).shape == (3, 64, 64)
    strip, plan = image.fit(picture(1, 20_000), (64, 64), "crop")  # Resized whole, it would take 250 MB.
    assert image.unfit(strip, plan).shape == (3, 1, 1)


def test_no_seams() -> None:
    """Tiles that come back each with another brightness blend: no step between pixels is more than a part of it."""
    x = torch.full((3, 200, 200), 128, dtype=torch.uint8)
    tiles, plan = image.fit(x, (64, 64), "tile")
    offsets = torch.rand(len(tiles), 1, 1, 1, generator=torch.Generator().manual_seed(0)) * 0.4 - 0.2
    back = image.unfit(tiles + offsets, plan)
    assert (back.max() - back.min()) > 0.2
    assert back.diff(dim=1).abs().max() < 0.4 * 0.25
    assert back.diff(dim=2).abs().max() < 0.4 * 0.25


def test_fit_and_unfit_refuse() -> None:
    x = picture(20, 30)
    with pytest.raises(InputError, match="resize, crop, pad, tile"):
        image.fit(x, (8, 8), "stretch")
    with pytest.raises(InputError, match="uint8"):
        image.fit(x.float(), (8, 8), "resize")
    tiles, plan = image.fit(x, (8, 8), "tile")
    with pytest.raises(InputError, match="tile"):
        image.unfit(tiles[:-1], plan)


@pytest.mark.parametrize(
    "change",
    [
        {"mode": "stretch"},
        {"mode": ["tile"]},
        {"original": [0, 5]},
        {"original": [5]},
        {"original": "ab"},
        {"original": [10**6, 10**6]},
        {"size": [True, 5]},
        {"size": None},
        {"overlap": [-1, 0]},
        {"overlap": [8, 8]},
    ],
)
def test_foreign_fits_are_refused(change: dict) -> None:
    values = {"mode": "tile", "original": [20, 30], "size": [8, 8], "overlap": [1, 1]}
    assert Fit.from_dict(values).to_dict() == values
    with pytest.raises(FormatError):
        Fit.from_dict(values | change)
    with pytest.raises(FormatError):
        Fit.from_dict({k: v for k, v in values.items() if k != "mode"})
