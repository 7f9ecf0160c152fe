"""How video is judged: rates, sizes, measures, H.264 and H.265 at equal bytes, the pictures of a report."""

import json
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from itertools import pairwise
from math import log2
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clip_codec import LEVELS, Means, runner_of, smooth_clip
from PIL import Image
from torch import Tensor, nn

from codeczoo import zoo
from codeczoo.cli import drawings
from codeczoo.cli import eval as eval_command
from codeczoo.core.errors import InputError, MissingError
from codeczoo.core.summary import summary
from codeczoo.core.types import StreamSpec, TokenSpec
from codeczoo.export import evaluate, video_baselines
from codeczoo.export.batches import Prefix
from codeczoo.export.evaluate import Evaluation, rates_of
from codeczoo.export.judges import JUDGES, PictureMeasures, VideoJudge, VideoMeasures
from codeczoo.export.judging import Networks
from codeczoo.export.sources import Sample
from codeczoo.export.video_baselines import BASELINES, at_bytes
from codeczoo.io.files import Found
from codeczoo.metrics import video
from codeczoo.metrics.fid import ReconstructionFID

CPU = torch.device("cpu")


# --- H.264 and H.265 -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def av() -> Any:
    return pytest.importorskip("av", reason="PyAV is not installed")


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_use_the_bytes_they_get(name: str) -> None:
    x, budgets = smooth_clip(9, 64, 64), (10, 700, 1500, 20_000)
    coded = [at_bytes(x, BASELINES[name], budget) for budget in budgets]
    assert len(coded[0].stream) > 10  # nothing is that small, and that is told
    assert all(len(c.stream) <= budget for c, budget in zip(coded[1:], budgets[1:], strict=True))
    assert all(len(c.stream) > 0.8 * budget for c, budget in zip(coded[1:3], budgets[1:3], strict=True))
    assert all(a.psnr < b.psnr for a, b in pairwise(coded)) and coded[-1].psnr > 38 and coded[-1].shrunk == 1
    assert all(c.x_hat.shape == x.shape and c.x_hat.min() >= 0 and c.x_hat.max() <= 1 for c in coded)
    rounded = (x[None] * 255).round() / 255
    for c in coded:
        assert c.psnr == pytest.approx(float(video.psnr(rounded, c.x_hat[None])), abs=1e-3)


@pytest.mark.parametrize("name", BASELINES)
def test_the_bytes_are_a_whole_elementary_stream(name: str, av: Any) -> None:
    x = smooth_clip(9, 64, 48)
    coded = at_bytes(x, BASELINES[name], 4000)
    with av.open(BytesIO(coded.stream), format=BASELINES[name].format) as file:
        frames = [frame.to_ndarray(format="rgb24", src_colorspace=1) for frame in file.decode(video=0)]
    found = torch.from_numpy(np.stack(frames)).permute(3, 0, 1, 2) / 255
    assert found.shape == x.shape and float(video.psnr(found[None], coded.x_hat[None])) > 35
    assert b"x26" not in coded.stream  # no advertisement


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("shape", [(1, 33, 47), (3, 5, 9), (2, 16, 300)])
def test_baselines_take_any_size(name: str, shape: tuple[int, int, int]) -> None:
    x = smooth_clip(*shape)
    coded = at_bytes(x, BASELINES[name], 100_000)
    assert coded.x_hat.shape == x.shape and coded.psnr > 30
    assert abs(float((coded.x_hat - x).mean())) < 2 / 255  # no shift of colour


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_keep_the_order_of_frames(name: str) -> None:
    levels = [0.1, 0.9, 0.3, 0.7, 0.2, 0.8, 0.5]
    x = torch.tensor(levels).view(1, -1, 1, 1).expand(3, -1, 32, 32)
    found = at_bytes(x, BASELINES[name], 10_000).x_hat.mean((0, 2, 3))
    assert found.tolist() == pytest.approx(levels, abs=0.02)


def test_a_tiny_budget_is_spent_on_a_smaller_picture() -> None:
    x = smooth_clip(9, 128, 128) + 0.05 * torch.randn(3, 9, 128, 128, generator=torch.Generator().manual_seed(0))
    coded = at_bytes(x.clamp(0, 1), BASELINES["h264"], 500)
    assert coded.shrunk > 1 and len(coded.stream) <= 500 and coded.x_hat.shape == x.shape


def test_what_never_fits_gets_as_small_as_it_can() -> None:
    stripes = (torch.arange(64) // 4 % 2).float().expand(3, 5, 64, 64)  # which no smaller picture keeps
    coded = [at_bytes(stripes, BASELINES["h264"], budget) for budget in (10, 100_000)]
    assert [c.shrunk for c in coded] == [4, 1]


def test_what_baselines_cannot_do_is_told(monkeypatch: pytest.MonkeyPatch, av: Any) -> None:
    for shape in ((3, 8, 8), (1, 3, 4, 8, 8), (4, 3, 16, 16), (3, 0, 16, 16)):
        with pytest.raises(InputError, match=r"takes \(3, T, H, W\)"):
            at_bytes(torch.zeros(shape), BASELINES["h264"], 100)
    monkeypatch.setattr(av, "codecs_available", set())
    with pytest.raises(MissingError, match="built without libx265"):
        at_bytes(smooth_clip(2), BASELINES["h265"], 100)


# --- rates, sizes, measures ------------------------------------------------------------------------------------------


def spec_of(n: int, prefixes: tuple[Any, ...]) -> TokenSpec:
    stream = StreamSpec((8,), ("time", "row", "column"), (None, None, None), 1 / 256, "codes", (4, 8, 8))
    return TokenSpec("video", "pixel", (stream,) * n, prefixes)


def test_rates_are_prefixes_of_streams() -> None:
    assert rates_of(spec_of(3, ("positions", "streams"))) == [Prefix(streams=n) for n in (1, 2, 3)]
    assert rates_of(spec_of(8, ("streams",))) == [Prefix(streams=n) for n in (1, 2, 4, 8)]
    assert rates_of(spec_of(1, ("positions",))) == [Prefix()]  # fewer positions are fewer frames
    assert rates_of(spec_of(3, ("streams",)), "streams", [3, 1]) == [Prefix(streams=1), Prefix(streams=3)]
    with pytest.raises(InputError, match="fewer frames, not a lower rate"):
        rates_of(spec_of(1, ("positions",)), "positions", [2])


def test_sizes_tell_every_stream() -> None:
    codec = Means()
    judge, x = JUDGES["video"](codec.spec, Networks(), CPU), smooth_clip(17, 32, 48)
    tokens = codec.encode(x[None])
    facts = judge.sizes(x, tokens, 700, 1000)
    pixels, bits = 17 * 32 * 48, 3 * log2(LEVELS)
    coarse, fine = 5 * 4 * 6 * bits, 9 * 8 * 12 * bits
    assert facts["bits"] == coarse + fine and facts["bpp"] == pytest.approx((coarse + fine) / pixels)
    assert facts["bpp coarse"] == pytest.approx(coarse / pixels) and facts["bpp fine"] == pytest.approx(fine / pixels)
    assert (facts["payload_bpp"], facts["file_bpp"]) == pytest.approx((5600 / pixels, 8000 / pixels))
    facts = judge.sizes(x, tokens.prefix(streams=1), 700, 1000)
    assert facts["bits"] == coarse and "bpp fine" not in facts


def test_baselines_get_the_bytes_of_the_whole_file() -> None:
    judge, x = JUDGES["video"](Means().spec, Networks(), CPU), smooth_clip(9, 64, 64)
    x_hat, facts = judge.baseline("h264", x, 700, 1500)
    assert 1200 < facts["file_bytes"] <= 1500 and facts["file_bpp"] == 8 * facts["file_bytes"] / (9 * 64 * 64)
    assert (facts["too_large"], facts["shrunk"]) == (0, 0) and x_hat.shape == x.shape
    assert judge.baseline("h264", x, 5, 10)[1]["too_large"] == 1


class Mean(nn.Module):
    """Features of clips for FVD: the mean of the first and of the last frame."""

    def forward(self, x: Tensor) -> Tensor:
        assert x.dtype == torch.uint8 and x.shape[2] >= 9
        return x[:, :, [0, -1]].double().mean((1, 3, 4)).repeat(1, 200)


def test_networks_see_frames_and_clips() -> None:
    seen = []

    def lpips(a: Tensor, b: Tensor) -> Tensor:
        seen.append(tuple(a.shape))
        return (a - b).abs().mean()

    measures = VideoMeasures(Networks(lpips=lpips, i3d=Mean()), CPU)
    clips = [smooth_clip(n, 16, 16, n) for n in (9, 12, 4, 1)]
    values = [measures.of(x, x + 0.1 * (1 + i)) for i, x in enumerate(clips)]
    assert seen == [(1, 3, 16, 16)] * (9 + 12 + 4 + 1)
    assert [v["lpips"] for v in values] == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=1e-6)
    assert np.isnan(values[3]["flicker"]) and values[0]["flicker"] < 1e-3
    assert measures.of_all()["fvd"] > 1  # of the two clips that are long enough
    alone = VideoMeasures(Networks(i3d=Mean()), CPU)
    alone.of(clips[0], clips[0])
    assert alone.of_all() == {}  # nothing can be said of one clip
    assert set(VideoMeasures(Networks(), CPU).of(torch.zeros(3, 2, 5, 40), torch.zeros(3, 2, 5, 40))) == {
        "psnr", "flicker"
    }  # fmt: skip


# --- the report ------------------------------------------------------------------------------------------------------


def evaluated(
    clips: Sequence[Tensor], against: Sequence[str], monkeypatch: pytest.MonkeyPatch, rates: Sequence[Prefix] = ()
) -> Evaluation:
    monkeypatch.setattr(zoo, "title", lambda name: name)
    codec = Means()
    samples = [
        Sample(Found(Path(f"{i}.mp4"), Path(str(i))), codec.encode(x[None]), x=x[None]) for i, x in enumerate(clips)
    ]
    samples.insert(1, replace(samples[0], tokens=None, x=None, error="broken"))
    evaluation = Evaluation(runner_of(codec), rates or rates_of(codec.spec), against, Networks())
    assert [s.error for s in evaluation.add(samples)].count("broken") == 1
    return evaluation


def test_more_streams_are_better_and_baselines_get_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    clips = [smooth_clip(17, 32, 48), smooth_clip(6, 64, 64, 1)]
    rows = evaluated(clips, ["h264"], monkeypatch).result()
    assert [(row["system"], row["rate"], row["count"]) for row in rows] == [
        (system, rate, 2) for rate in ("1 streams", "2 streams") for system in ("means", "h264")
    ]
    assert rows[2]["psnr"] > rows[0]["psnr"] + 3 and rows[2]["ssim"] > rows[0]["ssim"]
    assert rows[2]["bpp"] == pytest.approx(rows[2]["bpp coarse"] + rows[2]["bpp fine"])
    assert rows[0]["bpp"] == rows[0]["bpp coarse"] == rows[2]["bpp coarse"] and "bpp fine" not in rows[0]
    for ours, theirs in (rows[:2], rows[2:]):
        assert theirs["too_large"] or theirs["file_bytes"] <= ours["file_bytes"]
        assert all(np.isfinite(row["flicker"]) for row in (ours, theirs))
    json.dumps(rows)


def test_the_table_has_a_column_for_each_stream() -> None:
    rows = [{"system": "a", "bpp": 1.0, "bpp coarse": 0.25, "bpp fine": 0.75, "psnr": 30.0}, {"system": "b", "psnr": 1}]
    assert list(eval_command.formats_of(rows)) == ["system", "bpp", "bpp coarse", "bpp fine", "psnr"]


def test_contact_sheets_show_frames_of_every_rate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clips = [smooth_clip(17, 64, 96), smooth_clip(3, 64, 96, 1)]
    evaluation = evaluated(clips, [], monkeypatch)
    drawings.draw(tmp_path, evaluation.result(), evaluation)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"rate_distortion.png", "contact_sheet_1.png", "contact_sheet_2.png"}
    sheet = np.asarray(Image.open(tmp_path / "contact_sheet_1.png").convert("RGB"))
    height = drawings.HEAD + 3 * (64 + drawings.GAP)
    margin = sheet.shape[1] - 8 * (96 + drawings.GAP)
    assert sheet.shape[0] == height and margin >= drawings.MARGIN
    codec = Means()
    wanted = [clips[0], *(codec.decode(codec.encode(clips[0][None], n_streams=n))[0] for n in (1, 2))]
    for row, x in enumerate(wanted):
        for column, frame in enumerate((0, 2, 5, 7, 9, 11, 14, 16)):
            top, left = drawings.HEAD + row * (64 + drawings.GAP), margin + column * (96 + drawings.GAP)
            cell = sheet[top : top + 64, left : left + 96].transpose(2, 0, 1) / 255.0
            assert np.abs(cell - x[:, frame].numpy()).max() < 1 / 255, (row, column)
    # Something is written above the columns and beside the lines.
    assert (sheet[: drawings.HEAD, margin:] < 128).any() and (sheet[drawings.HEAD :, :margin] < 128).any()
    assert Image.open(tmp_path / "contact_sheet_2.png").size[0] == margin + 3 * (96 + drawings.GAP)


def test_previews_are_small() -> None:
    judge = VideoJudge(Means().spec, Networks(), CPU)
    assert judge.preview(torch.zeros(3, 100, 512, 300)).shape == (3, 8, 256, 150)
    assert judge.preview(torch.zeros(3, 2, 16, 16)).shape == (3, 2, 16, 16)
    assert VideoJudge.places(1) == [0] and VideoJudge.places(100)[::7] == [0, 99]


def test_only_what_is_for_video_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "title", lambda name: name)
    with pytest.raises(InputError, match="no baseline 'jpeg' for video; allowed: h264, h265"):
        Evaluation(runner_of(Means()), [Prefix()], ["jpeg"], Networks())
    assert evaluate.label(Prefix(streams=2)) == "2 streams" and set(video_baselines.BASELINES) == {"h264", "h265"}


def test_cards_tell_strides_and_bits_of_streams() -> None:
    found = summary(json.loads(json.dumps(Means(16).spec.to_dict())))
    assert found["media"] == "video, any size" and found["prefixes"] == "positions, streams"
    assert found["tokens"] == "one of 3*16 per 4x8x8, one of 3*16 per 2x4x4"
    assert found["bits"] == "0.4219 per pixel"
    assert found["bits_of_streams"] == "coarse: 0.04688, fine: 0.375 per pixel"
    one = summary(json.loads(json.dumps(spec_of(1, ("positions",)).to_dict())))
    assert one["tokens"] == "one of 8 per 4x8x8" and "bits_of_streams" not in one


def test_no_numbers_are_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Means, "decode", lambda self, tokens: torch.full((1, 3, 9, 32, 32), torch.nan))
    with pytest.raises(InputError, match="means, 1 streams: what it decodes holds values that are no numbers"):
        evaluated([smooth_clip(9, 32, 32)], [], monkeypatch)


def test_rates_are_of_all_bits_and_all_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny clip weighs little: means of ratios would be its own."""
    rows = evaluated([smooth_clip(17, 64, 64), smooth_clip(1, 8, 8)], [], monkeypatch).result()
    pixels = (17 * 64 * 64 + 8 * 8) / 2
    assert rows[0]["payload_bpp"] == pytest.approx(8 * rows[0]["payload_bytes"] / pixels, rel=1e-6)
    assert rows[0]["bpp"] == pytest.approx(rows[0]["bits"] / pixels, rel=1e-6)


def test_lpips_and_fid_want_enough_to_look_at() -> None:
    calls: list[int] = []

    class Few(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :4].float()

    measures = PictureMeasures(Networks(lpips=lambda a, b: calls.append(1) or torch.tensor(0.5)), torch.device("cpu"))
    x = torch.rand(3, 12, 40)
    assert "lpips" not in measures.of(x, x) and not calls
    assert measures.of(torch.rand(3, 16, 40), torch.rand(3, 16, 40))["lpips"] == 0.5
    measures._fid = ReconstructionFID(Few(), 4)
    measures.of(x, x)
    assert measures.of_all() == {}
    measures.of(x, x)
    assert measures.of_all()["rfid"] == pytest.approx(0, abs=1e-6)
