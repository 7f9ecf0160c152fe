"""Audio files in and out: every format, seeking, resampling in blocks, damage, clipping."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SHARED
from torch import Tensor

from codeczoo.core.errors import InputError
from codeczoo.io.audio import SUFFIXES, Writer, blocks, info, read, write
from codeczoo.io.files import find
from codeczoo.io.resample import Resampler, resample, resampled_length

av = pytest.importorskip("av")
soundfile = pytest.importorskip("soundfile")
pytest.importorskip("soxr")

RATE = 24000
LOSSLESS = {
    "u8.wav": ("WAV", "PCM_U8", 1 / 127),
    "16.wav": ("WAV", "PCM_16", 2**-15),
    "24.wav": ("WAV", "PCM_24", 2**-22),
    "float.wav": ("WAV", "FLOAT", 0.0),
    "16.flac": ("FLAC", "PCM_16", 2**-15),
    "24.flac": ("FLAC", "PCM_24", 2**-22),
    "24.aiff": ("AIFF", "PCM_24", 2**-22),
    "16.aiff": ("AIFF", "PCM_16", 2**-15),
    "16.caf": ("CAF", "PCM_16", 2**-15),
    "alac.caf": ("CAF", "ALAC_16", 2**-15),
}
LOSSY = {"a.mp3": ("MP3", "MPEG_LAYER_III"), "a.ogg": ("OGG", "VORBIS"), "a.opus": ("OGG", "OPUS")}
CONTAINERS = {"a.m4a": "aac", "a.aac": "aac", "a.mka": "aac", "a.webm": "libopus", "a.mp4": "aac", "a.mov": "alac"}


def tone(channels: int = 2, frames: int = 36007, rate: int = RATE) -> Tensor:
    """Sines with beats, different in each channel, float (C, T), at most 0.6."""
    t = torch.arange(frames, dtype=torch.float64) / rate
    pitch = 220.0 * (1 + torch.arange(channels))[:, None]
    x = 0.3 * torch.sin(2 * torch.pi * pitch * t) + 0.3 * torch.sin(2 * torch.pi * (pitch * 1.5 + 3) * t)
    return x.float()


def encoded(path: Path, codec: str, x: Tensor, rate: int) -> None:
    """x in a container, written by PyAV."""
    layout = "mono" if len(x) == 1 else "stereo"
    with av.open(str(path), "w", format="adts" if path.suffix == ".aac" else None) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(x.numpy()), "fltp", layout)
        frame.sample_rate, frame.pts = rate, 0
        size = stream.codec_context.frame_size or 1024
        convert = av.AudioResampler(stream.codec_context.format.name, layout, rate, frame_size=size)
        for part in [*convert.resample(frame), *convert.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("name", LOSSLESS)
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_lossless_formats_read_back(name: str, channels: int, tmp_path: Path) -> None:
    container, subtype, error = LOSSLESS[name]
    x, path = tone(channels), tmp_path / name
    soundfile.write(path, x.T.numpy(), RATE, format=container, subtype=subtype)
    y, rate = read(path)
    assert rate == RATE and y.dtype == torch.float32 and y.shape == x.shape
    assert (y - x).abs().max() <= error
    assert info(path) == (RATE, channels, 36007, 36007 / RATE)
    assert torch.equal(read(path.read_bytes())[0], y)
    assert torch.equal(read(path, start=12345, frames=999)[0], y[:, 12345:13344])
    assert torch.equal(read(path, start=36000, frames=999)[0], y[:, 36000:])


@pytest.mark.parametrize("name", LOSSY)
def test_lossy_formats_read_back(name: str, tmp_path: Path) -> None:
    x, path = tone(), tmp_path / name
    write(path, x, RATE)
    y, rate = read(path)
    assert (rate, y.shape) == (RATE, x.shape) and info(path).frames == 36007
    assert (y - x)[:, 100:-100].pow(2).mean() < 0.02 * x.pow(2).mean()
    for start in (3000, 20001, 30000):
        assert (read(path, start=start, frames=500)[0] - y[:, start : start + 500]).abs().max() < 1e-3
    assert torch.equal(torch.cat(list(blocks(path, 700)), 1), y)


@pytest.mark.parametrize("name", CONTAINERS)
def test_containers_read_back(name: str, tmp_path: Path) -> None:
    rate = 48000 if "webm" in name else 44100
    x, path = tone(2, 3 * rate, rate), tmp_path / name
    encoded(path, CONTAINERS[name], x, rate)
    y, _ = read(path)
    found = info(path)
    assert found[:3] == (rate, 2, None) and found.duration is not None
    assert abs(found.duration - 3) < 0.3
    assert abs(y.shape[1] - 3 * rate) < 3000  # bare AAC keeps the encoder's delay
    assert y.shape == x.shape or name in ("a.aac", "a.mka")
    lag = int(torch.fft.irfft(torch.fft.rfft(y[0, :100000]) * torch.fft.rfft(x[0, :100000]).conj()).argmax())
    assert lag == 0 if name != "a.aac" else lag % rate <= 2048
    part, _ = read(path, start=50001, frames=4000)
    assert (part - y[:, 50001:54001]).abs().max() < 0.01  # AAC decoders draw noise
    assert torch.cat(list(blocks(path, 1111)), 1).shape == y.shape
    assert torch.equal(read(path.read_bytes())[0], y)


def test_the_suffix_does_not_matter(tmp_path: Path) -> None:
    x = tone(1)
    write(tmp_path / "a.flac", x, RATE)
    for name in ("a.wav", "a.raw", "nothing"):
        (tmp_path / name).write_bytes((tmp_path / "a.flac").read_bytes())
        assert torch.equal(read(tmp_path / name)[0], read(tmp_path / "a.flac")[0])


# ---- sampling rates ----


@pytest.mark.parametrize("old, new", [(11025, 24000), (44100, 24000), (24000, 44100), (44101, 16000), (8000, 48000)])
def test_resampling_does_not_depend_on_blocks(old: int, new: int, tmp_path: Path) -> None:
    x, path = tone(2, old * 2 + 13, old), tmp_path / "a.wav"
    write(path, x, old)
    y, rate = read(path, new)
    assert rate == new and y.shape[1] == resampled_length(x.shape[1], old, new)
    for frames in (1, 997, 24000, 10**6):
        if frames > 1 or old == 11025:
            parts = list(blocks(path, frames, new))
            assert {p.shape[1] for p in parts[:-1]} <= {frames} and parts[-1].shape[1] <= frames
            assert torch.equal(torch.cat(parts, 1), y)
    for start in (1, 5000, new + 7):
        assert (read(path, new, start, 3000)[0] - y[:, start : start + 3000]).abs().max() < 1e-5
    # Also right, not only the same: a tone stays the tone that it is at the new rate.
    true = tone(2, y.shape[1], new)
    assert (y - true)[:, 500:-500].abs().max() < 2e-4


@pytest.mark.parametrize("n", [1, 2, 3, 160, 161, 48001])
def test_resampled_length(n: int) -> None:
    for old, new in ((48000, 24000), (24000, 48000), (44100, 16000), (11025, 24000), (7, 3)):
        x = torch.rand(1, n)
        assert resample(x, old, new).shape[1] == resampled_length(n, old, new) == int(n * new / old + 0.5)
        stream = Resampler(old, new, 1)
        parts = [stream.step(x[:, :1]), stream.step(x[:, 1:]), stream.step(x[:, :0], last=True)]
        assert torch.equal(torch.cat(parts, 1), resample(x, old, new))


def test_an_hour_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from codeczoo.io import audio_sources

    asked: list[int] = []
    reading = audio_sources.SoundFileSource.read
    monkeypatch.setattr(
        audio_sources.SoundFileSource, "read", lambda s, n: asked.append(n) or reading(s, n)
    )  # what is decoded at once bounds the memory
    write(tmp_path / "a.wav", torch.zeros(1, 40 * 8000), 8000)
    assert sum(b.shape[1] for b in blocks(tmp_path / "a.wav", 12000, 24000)) == 40 * 24000
    assert max(asked) <= 4096 and len(asked) > 70


# ---- damage ----


def test_errors_are_one_clear_line(tmp_path: Path) -> None:
    def says(source: Path | bytes, *words: str) -> None:
        for reading in (lambda: read(source), lambda: list(blocks(source, 1000))):
            with pytest.raises(InputError) as caught:
                reading()
            text = str(caught.value)
            assert all(w in text for w in words) and "\n" not in text and len(text) < 300, text

    says(tmp_path / "none.wav", "no such file", "none.wav")
    says(tmp_path, "is a folder")
    says(b"", "is empty")
    says(b"no audio at all" * 100, "not audio of a known kind", "flac")
    write(tmp_path / "zero.wav", torch.zeros(1, 0), RATE)
    says(tmp_path / "zero.wav", "zero.wav holds no samples")
    for bad in (np.nan, np.inf):
        soundfile.write(tmp_path / "nan.wav", np.array([0.0, bad, 0.5]), RATE, subtype="FLOAT")
        says(tmp_path / "nan.wav", "nan.wav has NaN or infinite samples")
    write(tmp_path / "short.wav", tone(1, 100), RATE)
    with pytest.raises(InputError, match="no samples from frame 100 on"):
        read(tmp_path / "short.wav", start=100)
    with pytest.raises(InputError, match="at least"):
        read(tmp_path / "short.wav", frames=0)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.aiff", "a.mov", "a.m4a"])
def test_truncated_files_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if path.suffix in (".mov", ".m4a"):
        encoded(path, CONTAINERS[name], tone(2, 5 * RATE), RATE)
    else:
        soundfile.write(path, tone(2, 5 * RATE).T.numpy(), RATE)
    data = path.read_bytes()
    for reading in (read, lambda b: list(blocks(b, 1000))):
        with pytest.raises(InputError, match=r"truncated|cannot read|not audio"):
            reading(data[: len(data) * 6 // 10])


def test_truncated_ogg_gives_what_is_there(tmp_path: Path) -> None:
    write(tmp_path / "a.ogg", torch.randn(1, 5 * RATE, generator=torch.Generator().manual_seed(0)) / 10, RATE)
    data = (tmp_path / "a.ogg").read_bytes()
    whole, part = read(data)[0], read(data[: len(data) * 6 // 10])[0]
    assert 0 < part.shape[1] < whole.shape[1] and (part - whole[:, : part.shape[1]]).abs().max() < 1e-3


def test_wav_from_a_pipe_has_no_length_and_is_read(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", tone(1, 1000), RATE)
    data = bytearray((tmp_path / "a.wav").read_bytes())
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    assert torch.equal(read(bytes(data))[0], read(tmp_path / "a.wav")[0])


def test_a_picture_or_silent_film_has_no_audio_track(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 16
        for packet in (stream.encode(av.VideoFrame(16, 16, "yuv420p")), stream.encode(None)):
            container.mux(packet)
    with pytest.raises(InputError, match=r"a\.mp4 has no audio track"):
        read(tmp_path / "a.mp4")


# ---- writing ----


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_sixteen_bits_come_back_unchanged(suffix: str, tmp_path: Path) -> None:
    x = torch.arange(-32768, 32768)[None] / 32768
    write(tmp_path / f"a{suffix}", x, RATE)
    assert torch.equal(read(tmp_path / f"a{suffix}")[0], x)


def test_clipping_is_counted_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    x = torch.tensor([[0.5, 1.5, -1.25, 1.0]])
    with Writer(tmp_path / "a.wav", RATE, 1) as file:
        file.append(x)
        file.append(x)
    assert file.clipped == 4 and "clipped 4 samples (50 %), peak 1.500" in caplog.text
    assert torch.equal(read(tmp_path / "a.wav")[0][0, :3], torch.tensor([0.5, 32767 / 32768, -1]))
    caplog.clear()
    write(tmp_path / "a.wav", x.clamp(-1, 1), RATE)
    assert not caplog.text


def test_blocks_write_the_same_file_as_the_whole(tmp_path: Path) -> None:
    x = tone()
    for suffix in (".wav", ".flac", ".mp3", ".ogg", ".opus"):
        write(tmp_path / f"whole{suffix}", x, RATE)
        with Writer(tmp_path / f"blocks{suffix}", RATE, 2) as file:
            for part in x.split(777, 1):
                file.append(part)
        assert file.frames == x.shape[1]
        whole, parts = read(tmp_path / f"whole{suffix}")[0], read(tmp_path / f"blocks{suffix}")[0]
        start = 256 if suffix == ".ogg" else 0  # libvorbis extrapolates backwards from the first block
        assert torch.equal(whole[:, start:], parts[:, start:])


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="stop"), Writer(tmp_path / "a.wav", RATE, 1) as file:
        file.append(tone(1))
        assert not (tmp_path / "a.wav").exists()
        raise RuntimeError("stop")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="NaN"):
        write(tmp_path / "a.wav", torch.full((1, 5), torch.nan), RATE)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        write(tmp_path / "file" / "a.wav", tone(1), RATE)


@pytest.mark.parametrize(
    ("name", "x", "rate", "words"),
    [
        ("a.m4a", torch.zeros(1, 9), RATE, ".wav, .flac, .mp3"),
        ("a.opus", torch.zeros(1, 9), 44100, "8000, 12000, 16000, 24000, 48000"),
        ("a.mp3", torch.zeros(6, 9), RATE, "channels must be 1..2, got 6"),
        ("a.wav", torch.zeros(9), RATE, r"\(C, T\)"),
        ("a.wav", torch.zeros(1, 9, dtype=torch.int64), RATE, "int64"),
    ],
)
def test_what_cannot_be_written(name: str, x: Tensor, rate: int, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        write(tmp_path / name, x, rate)
    assert list(tmp_path.iterdir()) == []


def test_long_vorbis_is_written(tmp_path: Path) -> None:
    write(tmp_path / "a.ogg", torch.zeros(1, 120 * 8000), 8000)  # in one call libsndfile overflows its stack
    assert info(tmp_path / "a.ogg").frames == 120 * 8000


def test_real_files(tmp_path: Path) -> None:
    folder = SHARED / "data" / "SAMPLES"
    if not folder.is_dir():
        pytest.skip("no ../shared/data/SAMPLES")
    for found in find([folder], (*SUFFIXES, ".mp4")):
        x, rate = read(found.path, 16000)
        about = info(found.path)
        assert about.duration is not None and abs(x.shape[1] / 16000 - about.duration) < 0.05
        assert rate == 16000 and x.abs().max() <= 2
