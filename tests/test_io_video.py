"""Clips in and out: every format, seeking, frame rates, irregular time stamps, turned and damaged files."""

import gc
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from codeczoo.core.errors import InputError
from codeczoo.export.video_baselines import X265  # without it x265 may write behind its memory
from codeczoo.io import image
from codeczoo.io.video import SAVED_AS, Writer, blocks, info, read, write
from codeczoo.io.video_sources import opened

av = pytest.importorskip("av")
NTSC = Fraction(30000, 1001)


def clip(frames: int = 31, height: int = 48, width: int = 64, noise: float = 0.0) -> Tensor:
    """Waves that move, and noise, float (3, T, H, W)."""
    t, y, x = torch.arange(frames)[:, None, None], torch.arange(height)[:, None], torch.arange(width)
    waves = [0.5 + 0.4 * torch.sin((x + 3 * t) / 9 + c) * torch.cos(y / 13 + 2 * c) for c in range(3)]
    random = torch.rand(3, frames, height, width, generator=torch.Generator().manual_seed(0))
    return (1 - noise) * torch.stack(waves) + noise * random


def numbered(frames: int, size: int = 32) -> np.ndarray:
    """Frames whose grey tells their number, uint8 (T, size, size, 3)."""
    return np.full((frames, size, size, 3), 20, np.uint8) + 5 * np.arange(frames, dtype=np.uint8)[:, None, None, None]


def numbers(x: Tensor) -> list[int]:
    """The inverse, of uint8 (3, T, H, W)."""
    return ((x.float().mean((0, 2, 3)) - 20) / 5).round().int().tolist()


def encoded(
    path: Path, codec: str, frames: np.ndarray, times: list[int], tick: Fraction, rate: Fraction | int = 25,
    **options: str
) -> Path:  # fmt: skip
    """Frames shown at times, counted in ticks, written by PyAV."""
    kind = "bgr0" if codec == "ffv1" else "yuv420p"
    with av.open(str(path), "w", container_options={"movflags": "faststart"} if path.suffix == ".mp4" else {}) as file:
        stream = file.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], kind
        stream.codec_context.time_base = tick
        for pixels, time in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.pts, frame.time_base = time, tick
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("suffix", SAVED_AS)
@pytest.mark.parametrize("size", [(48, 64), (47, 63), (2, 5)])
@pytest.mark.parametrize("rate", [NTSC, Fraction(12)])
def test_rates_sizes_and_frames_come_back(suffix: str, size: tuple[int, int], rate: Fraction, tmp_path: Path) -> None:
    x, path = clip(13, *size), tmp_path / f"a{suffix}"
    write(path, x, rate)
    found, y = info(path), read(path)
    assert found[1:4] == (*size, 13) and found[5:] == (False, 0, 1)
    assert found.rate == rate or (suffix == ".gif" and found.rate == pytest.approx(rate, rel=0.02))
    assert found.duration == pytest.approx(13 / rate, abs=0.02)
    assert y.dtype == torch.uint8 and y.shape == x.shape
    error = y / 255 - x
    assert error.abs().mean() < {".mkv": 0.002, ".gif": 0.05}.get(suffix, 0.02 if size[0] > 9 else 0.1)
    assert error.mean().abs() < 0.003 or suffix == ".gif" or size[0] < 9  # FFmpeg's own way is darker by 0.004
    if suffix == ".mkv":
        assert torch.equal(y, (x * 255).round().to(torch.uint8))
    assert torch.equal(read(path.read_bytes()), y)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


CODED = {
    "a.mp4": ("libx264", {"g": "12", "bf": "3"}),
    "hevc.mp4": ("libx265", {"x265-params": f"{X265}:keyint=12"}),
    "a.mov": ("libx264", {"g": "7", "bf": "0"}),
    "a.mkv": ("libx264", {"g": "12", "bf": "3", "x264-params": "open-gop=1"}),
    "a.webm": ("libvpx-vp9", {"g": "12", "b:v": "0", "crf": "30", "deadline": "realtime"}),
    "a.avi": ("mpeg4", {"g": "12"}),
    "a.ts": ("libx264", {"g": "12", "bf": "3"}),
    "a.h264": ("libx264", {"g": "12", "bf": "0"}),  # no time stamps
    "a.gif": ("", {}),
}


@pytest.mark.parametrize("name", CODED)
def test_parts_are_parts_of_the_whole(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codec, options = CODED[name]
    path, x = tmp_path / name, (clip(50) * 255).byte().permute(1, 2, 3, 0).numpy()
    if codec:
        encoded(path, codec, x, list(range(50)), Fraction(1, 25), **options)
    else:
        write(path, clip(50), 25)
    y = read(path)
    assert y.shape == (3, 50, 48, 64) and info(path).rate == 25
    for ahead in (2, 0):  # decoded up to, and sought
        monkeypatch.setattr("codeczoo.io.video_sources.AHEAD", ahead)
        for start in (0, 1, 11, 12, 13, 30, 47):
            assert torch.equal(read(path, start, 3), y[:, start : start + 3]), start
        with opened(path) as file:
            for start in (2, 3, 7, 40, 41, 12, 49):  # there and back
                file.seek(start)
                assert torch.equal(torch.from_numpy(file.read(1)).permute(3, 0, 1, 2), y[:, start : start + 1]), start
    assert torch.equal(read(path, 48, 9), y[:, 48:])
    for size in (1, 7, 50, 99):
        found = list(blocks(path, size))
        assert torch.equal(torch.cat(found, 1), y) and all(block.shape[1] == size for block in found[:-1])
    slow = read(path, rate=10)
    assert torch.equal(slow, y[:, [0, 3, 5, 8, 10, 13, 15, 18, 20, 23, 25, 28, 30, 33, 35, 38, 40, 43, 45, 48]])
    assert torch.equal(read(path, 9, 4, rate=10), slow[:, 9:13])
    fast = read(path, rate=50)
    assert fast.shape[1] in (99, 100) and torch.equal(fast[:, 0:98:2], y[:, :49])
    with pytest.raises(InputError, match="no frame 50"):
        read(path, 50)


def test_rates_close_to_nominal_ones_are_nominal(tmp_path: Path) -> None:
    times = [round(i * 1001 / 30) for i in range(40)]  # milliseconds
    path = encoded(tmp_path / "a.mkv", "ffv1", numbered(40), times, Fraction(1, 1000), NTSC)
    assert abs(info(path).rate / NTSC - 1) < 0.02 and numbers(read(path)) == list(range(40))


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_irregular_frames_are_put_on_a_grid(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = [0, 100, 200, 600, 700, 730, 760, 1200]  # milliseconds
    codec = "ffv1" if name == "a.mkv" else "libx264"
    path = encoded(tmp_path / name, codec, numbered(8), times, Fraction(1, 1000))
    shown = read(path, rate=10)
    assert numbers(shown)[:13] == [0, 1, 2, 2, 2, 2, 3, 4, 6, 6, 6, 6, 7]
    for ahead in (2, 0):
        monkeypatch.setattr("codeczoo.io.video_sources.AHEAD", ahead)
        for start in (0, 3, 5, 8, 12):
            assert torch.equal(read(path, start, 2, rate=10), shown[:, start : start + 2])
    assert read(path).shape[1] == pytest.approx(float(1.3 * info(path).rate), abs=3)


def test_still_ends_last(tmp_path: Path) -> None:
    frames = [Image.fromarray(pixels) for pixels in numbered(3)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=[100, 100, 1000])
    found = numbers(read(tmp_path / "a.gif", rate=10))
    assert found[:2] == [0, 1] and found[2:] == [2] * 10


def test_broken_clocks_raise(tmp_path: Path) -> None:
    path = encoded(tmp_path / "a.mkv", "ffv1", numbered(3), [0, 40, 10_000_000], Fraction(1, 1000))
    with pytest.raises(InputError, match="time stamps jump"):
        read(path, rate=25)


def test_frames_start_where_the_sound_s_clock_says(tmp_path: Path) -> None:
    path = encoded(tmp_path / "a.mkv", "ffv1", numbered(5), [200 + 40 * i for i in range(5)], Fraction(1, 1000))
    assert info(path).start == Fraction(1, 5) and numbers(read(path)) == list(range(5))


def turned(path: Path, matrix: tuple[int, ...]) -> None:
    """Writes a display matrix into an mp4."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 4 + 20 + 16
    data[at : at + 36] = struct.pack(">9i", *(n << 30 if i % 3 == 2 else n << 16 for i, n in enumerate(matrix)))
    path.write_bytes(data)


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_turned_files_are_read_upright(quarters: int, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write(path, clip(3), 25)
    y = read(path)
    cosine, sine = [(1, 0), (0, 1), (-1, 0), (0, -1)][quarters]
    turned(path, (cosine, sine, 0, -sine, cosine, 0, 0, 0, 1))  # clockwise
    assert torch.equal(read(path), y.rot90(-quarters, (2, 3)))
    assert info(path)[1:3] == ((64, 48) if quarters % 2 else (48, 64))


def test_pixels_may_be_oblong(tmp_path: Path) -> None:
    with Writer(tmp_path / "a.mp4", 25, Fraction(16, 11)) as file:
        file.append(clip(3))
    assert info(tmp_path / "a.mp4").aspect == Fraction(16, 11)
    turned(tmp_path / "a.mp4", (0, 1, 0, -1, 0, 0, 0, 0, 1))
    assert info(tmp_path / "a.mp4").aspect == Fraction(11, 16)


def test_transparent_pixels_are_over_white(tmp_path: Path) -> None:
    still = Image.new("RGBA", (8, 8), (255, 0, 0, 255))
    still.paste((0, 0, 0, 0), (0, 0, 4, 8))
    still.save(tmp_path / "a.gif", save_all=True, append_images=[still], duration=100, disposal=2)
    x = read(tmp_path / "a.gif")
    assert x[:, 0, 0, 0].tolist() == [255, 255, 255] and x[:, 0, 0, 7].tolist() == [255, 0, 0]


def test_folders_of_frames_are_clips(tmp_path: Path) -> None:
    x = clip(12)
    for i in range(12):
        image.write(tmp_path / f"frame{i}.png", x[:, i])
    assert torch.equal(read(tmp_path), (x * 255).round().byte())
    assert info(tmp_path)[:4] == (25, 48, 64, 12)
    assert torch.equal(read(tmp_path, 3, 2), (x[:, 3:5] * 255).round().byte())
    assert torch.equal(read(tmp_path, rate=5), (x[:, [0, 5, 10]] * 255).round().byte())
    image.write(tmp_path / "frame12.png", x[:, 0, :9])
    with pytest.raises(InputError, match="have one size"):
        read(tmp_path)


# ---- damage ----


def sound_file(path: Path, cover: bool) -> Path:
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=8000, layout="mono")
        picture = file.add_stream("png", rate=1) if cover else None
        if picture is not None:
            picture.height = picture.width = 8
            picture.pix_fmt, picture.disposition = "rgb24", av.stream.Disposition.attached_pic
            file.mux(picture.encode(av.VideoFrame.from_ndarray(np.zeros((8, 8, 3), np.uint8), "rgb24")))
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4000), np.float32), "fltp", "mono")
        frame.sample_rate = 8000
        file.mux([*stream.encode(frame), *stream.encode(None)])
    return path


def test_files_that_are_no_clips(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("no video " * 50)
    (tmp_path / "folder").mkdir()
    sound_file(tmp_path / "sound.m4a", cover=False)
    sound_file(tmp_path / "cover.mp4", cover=True)
    messages = {
        "missing.mp4": "no such file", "empty.mp4": "is empty", "text.mp4": "not video of a known kind",
        "folder": "holds no frames", "sound.m4a": "no video track", "cover.mp4": "no video track",
    }  # fmt: skip
    for name, message in messages.items():
        for call in (read, info):
            with pytest.raises(InputError, match=message) as caught:
                call(tmp_path / name)
            assert name in str(caught.value) and "\n" not in str(caught.value)
    for wrong in ({"start": -1}, {"frames": 0}, {"rate": 0}):
        with pytest.raises(InputError):
            read(tmp_path, **wrong)


FAST = {"libx264": {"g": "10"}, "mpeg4": {}, "ffv1": {"level": "3", "slicecrc": "1"}, "libx265": {
    "x265-params": X265
}, "libvpx-vp9": {"deadline": "realtime", "b:v": "0", "crf": "30"}}  # fmt: skip


@pytest.mark.parametrize("name, codec", [
    ("a.mp4", "libx264"), ("h.mp4", "libx265"), ("a.mkv", "libx264"), ("a.webm", "libvpx-vp9"), ("a.avi", "mpeg4"),
    ("l.mkv", "ffv1"),
])  # fmt: skip
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_truncated_files_raise(name: str, codec: str, share: float, tmp_path: Path) -> None:
    frames = (clip(50, noise=0.5) * 255).byte().permute(1, 2, 3, 0).numpy()
    path = encoded(tmp_path / name, codec, frames, list(range(50)), Fraction(1, 25), **FAST[codec])
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError, match=name) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError):
        list(blocks(path, 5))


def test_damaged_frames_raise(tmp_path: Path) -> None:
    frames = (clip(50, noise=0.5) * 255).byte().permute(1, 2, 3, 0).numpy()
    path = encoded(tmp_path / "a.mp4", "libx264", frames, list(range(50)), Fraction(1, 25), g="10")
    y, data = read(path), bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = bytes(3000)
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.mp4"):
        read(path)
    assert torch.equal(read(path, frames=10), y[:, :10]) and torch.equal(read(path, 40), y[:, 40:])


# ---- writing ----


def test_nothing_half_written_stays(tmp_path: Path) -> None:
    for suffix in SAVED_AS:
        with pytest.raises(RuntimeError), Writer(tmp_path / f"a{suffix}", 25) as file:
            file.append(clip(9))
            raise RuntimeError
        with pytest.raises(InputError, match="no frames"), Writer(tmp_path / f"a{suffix}", 25) as file:
            file.append(clip(9)[:, :0])
        with pytest.raises(InputError, match="so far are"), Writer(tmp_path / f"a{suffix}", 25) as file:
            file.append(clip(9))
            file.append(clip(9)[:, :, :40])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [clip()[0], clip()[:2], (clip() * 255).byte(), clip() * float("nan")])
def test_blocks_are_checked(wrong: Tensor, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot write"):
        write(tmp_path / "a.mp4", wrong, 25)
    assert not list(tmp_path.iterdir())


def test_wishes_are_checked(tmp_path: Path) -> None:
    wishes: list[tuple[str, Any]] = [("a.xyz", 25), ("a.mp4", 0), ("a.gif", 60), ("a.mp4/b.mp4", 25)]
    (tmp_path / "a.mp4").write_bytes(b"")
    for name, rate in wishes:
        with pytest.raises(InputError, match="cannot write"):
            write(tmp_path / name, clip(3), rate)
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_blocks_make_one_file(tmp_path: Path) -> None:
    x = clip(31)
    with Writer(tmp_path / "a.mkv", NTSC) as file:
        for size in (1, 0, 17, 13):
            file.append(x[:, file.frames : file.frames + size])
    assert torch.equal(read(tmp_path / "a.mkv"), (x * 255).round().byte()) and file.frames == 31


def test_real_clips(data_root: Path) -> None:
    sizes = {"nasa": (180, 320, 325), "friday": (480, 640, 185)}
    for name, size in sizes.items():
        path = data_root / "SAMPLES" / f"video_{name}.mp4"
        assert info(path)[1:4] == size and info(path).has_audio
        parts = read(path, size[2] - 3)
        assert parts.shape[1] == 3 and torch.equal(read(path, size[2] - 2, 1), parts[:, 1:2])


def test_no_decoder_outlives_its_file(tmp_path: Path) -> None:
    """Its threads would be missing in a process forked later, which then waits for them for ever."""
    threads = Path("/proc/self/task")
    if not threads.is_dir():
        pytest.skip("threads are counted in /proc")
    path, cut = tmp_path / "a.mp4", tmp_path / "cut.mp4"
    write(path, clip(9), 25)
    cut.write_bytes(path.read_bytes()[:-500])
    before = len(list(threads.iterdir()))
    gc.disable()
    try:
        for _ in range(3):
            info(path)
            read(path, 2, 3)
            next(blocks(path, 2))
            with pytest.raises(InputError):
                read(cut)
        assert len(list(threads.iterdir())) == before
    finally:
        gc.enable()
