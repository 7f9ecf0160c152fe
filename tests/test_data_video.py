"""Video data modules: generated films, clips by time stamps, one length a batch, exact resuming, damage, pictures."""

import inspect
import io
import logging
import tarfile
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT, SHARED

from codeczoo.core.config import build
from codeczoo.core.errors import ConfigError, InputError
from codeczoo.data.films import generated_film
from codeczoo.data.sampling import EndlessBatches, generator
from codeczoo.data.transforms import CentreCrop, Chain, Flip, RandomCrop, RandomResizedCrop, ResizeShorter
from codeczoo.io import image
from codeczoo.io.video import write
from codeczoo.io.video_container import Container

pytest.importorskip("av", reason='video files want "codeczoo[video]"')
pytest.importorskip("lightning", reason="data modules want codeczoo[train]")
pytest.importorskip("webdataset", reason="data modules want codeczoo[train]")

from batches import first, same

from codeczoo.data.generated import GeneratedPictures
from codeczoo.data.generated_video import GeneratedVideo
from codeczoo.data.image_folder import ImageFolder
from codeczoo.data.joint import JointModule
from codeczoo.data.shards import TrainingShards
from codeczoo.data.video_clips import TrainingVideo, ValidationVideo
from codeczoo.data.video_folder import VideoFolder
from codeczoo.data.video_webdataset import VideoWebDataset

WHOLE = Chain([])


def numbered(frames: int, height: int = 16, width: int = 16) -> torch.Tensor:
    """Frames whose grey tells their number, below 50, float (3, T, H, W)."""
    return ((20 + 4 * torch.arange(frames)) / 255)[:, None, None].expand(3, frames, height, width)


def numbers(x: torch.Tensor) -> list[int]:
    """The inverse, of uint8 or float (3, T, H, W)."""
    grey = x.float().mean((0, 2, 3)) * (1 if x.dtype == torch.uint8 else 255)
    return ((grey - 20) / 4).round().int().tolist()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven clips of several formats, sizes, rates and lengths, one of them in frames; two more are damaged."""
    for i, (suffix, frames, rate) in enumerate((
        ("mp4", 30, 12), ("webm", 24, 25), ("mkv", 40, Fraction(30000, 1001)), ("gif", 20, 10), ("mp4", 9, 12),
        ("mp4", 5, 8),
    )):  # fmt: skip
        write(tmp_path / "ab"[i % 2] / f"{i}.{suffix}", generated_film(0, i, 32 + 8 * i, frames)[..., :32, :], rate)
    for i in range(14):
        image.write(tmp_path / f"frames/{i:02}.png", generated_film(0, 9, 40, i + 1)[:, i])
    whole = (tmp_path / "a/0.mp4").read_bytes()
    (tmp_path / "b/cut.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "nothing.webm").write_bytes(b"no video")
    return tmp_path


def module_of(root: Path, **changes: Any) -> VideoFolder:
    given = {"root": str(root), "frames": [9], "image_size": 16, "batch_size": 4, "workers": 0, "seed": 3}
    module = VideoFolder(**(given | changes))
    module.setup()
    return module


# ---- generated films -------------------------------------------------------------------------------------------------


def test_generated_films_are_fixed_varied_and_move() -> None:
    reel = torch.stack([generated_film(0, i, 32, 9) for i in range(40)])
    assert reel.shape == (40, 3, 9, 32, 32) and reel.dtype == torch.float32
    assert 0 <= reel.min() < reel.max() <= 1
    assert torch.equal(reel[7], generated_film(0, 7, 32, 9))
    assert not torch.equal(reel[7], generated_film(1, 7, 32, 9))
    moved = (reel[:, :, 1:] - reel[:, :, :-1]).abs().mean((1, 2, 3, 4))
    assert (moved > 1e-3).all(), "every film moves"
    apart = (reel[1:] - reel[:-1]).abs().mean()
    assert moved.max() < apart and moved.mean() < apart / 4, "and its frames hang together"
    with pytest.raises(InputError, match="1 frame"):
        generated_film(0, 0, 32, 0)


def test_generated_films_are_alike_at_every_length_rate_and_size() -> None:
    for i in range(12):
        film = generated_film(0, i, 32, 9, rate=12)
        torch.testing.assert_close(generated_film(0, i, 32, 3, rate=12), film[:, :3], rtol=0, atol=1e-5)
        torch.testing.assert_close(generated_film(0, i, 32, 5, rate=6), film[:, ::2], rtol=0, atol=1e-3)
        large = torch.nn.functional.avg_pool3d(generated_film(0, i, 128, 9), (1, 4, 4))
        assert (large - film).abs().mean() < 0.03


def test_generated_module_keeps_training_and_validation_apart() -> None:
    module = GeneratedVideo(image_size=16, frames=5, batch_size=4, n_train=6, n_val=5, workers=0)
    module.setup()
    train = first(module, 6)
    assert train[0]["x"].shape == (4, 3, 5, 16, 16)
    keys = {key for batch in train for key in batch["key"]}
    val = [key for batch in module.val_dataloader() for key in batch["key"]]
    assert len(keys) == 6 and len(set(val)) == len(val) == 5 and not keys & set(val)


# ---- order, lengths, resuming ----------------------------------------------------------------------------------------


def test_batches_do_not_depend_on_workers_and_resume_exactly(folder: Path) -> None:
    whole = first(module_of(folder, frames=[1, 5, 9]), 8)
    assert {b["x"].shape[2] for b in whole} == {1, 5, 9} and all("lengths" not in b for b in whole)
    assert all(b["x"].shape[:2] == (4, 3) and b["x"].shape[3:] == (16, 16) for b in whole)
    assert all(b["x"].dtype == torch.float32 and 0 <= b["x"].min() < b["x"].max() <= 1 for b in whole)
    assert same(first(module_of(folder, frames=[1, 5, 9], workers=2), 8), whole)
    assert not same(first(module_of(folder, frames=[1, 5, 9], seed=4), 8), whole)
    again = module_of(folder, frames=[1, 5, 9], workers=1)
    again.load_state_dict({"draws": 3 * 4, "seed": 3, "samples": len(again.train_set)})
    assert same(first(again, 5), whole[3:])


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_draw_the_same_lengths_and_together_what_one_process_draws(folder: Path, world: int) -> None:
    module = module_of(folder, frames=[1, 3, 5])
    n = len(module.train_set)

    def samples(batch: int, rank_world: tuple[int, int]) -> list[list[torch.Tensor]]:
        draws = islice(EndlessBatches(n, batch, 3, 8, rank_world), 5)
        return [[module.train_set[draw]["x"] for draw in some] for some in draws]

    one = samples(4, (0, 1))
    assert len({batch[0].shape[1] for batch in one}) > 1
    assert all(len({x.shape[1] for x in batch}) == 1 for batch in one)
    for step, batch in enumerate(zip(*(samples(4 // world, (r, world)) for r in range(world)), strict=True)):
        together = list(chain(*batch))
        assert all(torch.equal(a, b) for a, b in zip(together, one[step], strict=True))


def test_every_length_is_drawn_about_as_often(folder: Path) -> None:
    media = TrainingVideo([1, 5, 9], None, WHOLE)
    drawn = [media.of_batch(generator(0, 2, i)).frames for i in range(300)]
    assert all(70 < drawn.count((n,)) < 130 for n in (1, 5, 9)) and media.frames == [1, 5, 9]


# ---- which frames ----------------------------------------------------------------------------------------------------


def test_frames_are_taken_at_the_rate_from_anywhere(tmp_path: Path) -> None:
    write(tmp_path / "a.mkv", numbered(48), 24)
    media, starts = TrainingVideo([5], [8], WHOLE), set()
    for i in range(150):
        found = numbers(media(tmp_path / "a.mkv", generator(i)))
        assert found == list(range(found[0], found[0] + 13, 3))
        starts.add(found[0])
    assert starts == set(range(48 - 12))
    uneven = np.array(numbers(TrainingVideo([4], [10], WHOLE)(tmp_path / "a.mkv", generator(0))))
    assert (uneven - uneven[0]).tolist() == [0, 2, 4, 7]  # 2.4 a step
    whole = TrainingVideo([48], None, WHOLE)(tmp_path / "a.mkv", generator(0))
    assert numbers(whole) == list(range(48)) and whole.dtype == torch.uint8 and whole.shape == (3, 48, 16, 16)
    a, b, c = numbers(TrainingVideo([3], [100], WHOLE)(tmp_path / "a.mkv", generator(0)))
    assert (b - a, c - a) == (1, 2)  # not above its own


def test_rates_are_drawn_from_numbers_and_ranges(tmp_path: Path) -> None:
    write(tmp_path / "a.mkv", numbered(50), 50)
    media, steps = TrainingVideo([2], [50, [2, 10]], WHOLE), []
    for i in range(200):
        a, b = numbers(media(tmp_path / "a.mkv", generator(i)))
        steps.append(b - a)
    own = steps.count(1)
    slow = sorted(step for step in steps if step > 1)
    assert 70 < own < 130 and slow[0] >= 5 and slow[-1] <= 25 and len(set(slow)) > 8
    assert sum(step < 11 for step in slow) == pytest.approx(len(slow) / 2, abs=18)  # even in the logarithm


def test_short_files_are_seen_faster_then_filled_up(tmp_path: Path) -> None:
    write(tmp_path / "a.mkv", numbered(10), 12)
    assert numbers(TrainingVideo([4], [2], WHOLE)(tmp_path / "a.mkv", generator(0))) == [0, 3, 6, 9]
    assert numbers(TrainingVideo([7], [6], WHOLE)(tmp_path / "a.mkv", generator(0))) == [0, 1, 3, 4, 6, 7, 9]
    filled = TrainingVideo([13], [6], WHOLE)(tmp_path / "a.mkv", generator(0))
    assert numbers(filled) == [*range(10), 9, 9, 9]
    assert numbers(ValidationVideo(13, None, WHOLE)(tmp_path / "a.mkv", generator(0))) == list(range(10))
    assert numbers(ValidationVideo(4, 6, WHOLE)(tmp_path / "a.mkv", generator(0))) == [0, 2, 4, 6]
    assert numbers(ValidationVideo(4, 60, WHOLE)(tmp_path / "a.mkv", generator(0))) == [0, 1, 2, 3]


def test_irregular_frames_are_taken_by_their_times(tmp_path: Path) -> None:
    import av

    times = [0, 100, 200, 300, 700, 800, 900, 1000, 1100, 1200]  # milliseconds: 300 is shown till 700
    with av.open(str(tmp_path / "a.mkv"), "w") as file:
        stream = file.add_stream("ffv1", rate=10)
        stream.height = stream.width = 16
        stream.pix_fmt, stream.codec_context.time_base = "bgr0", Fraction(1, 1000)
        pixels = (numbered(10) * 255).round().byte().permute(1, 2, 3, 0).numpy()
        for x, time in zip(pixels, times, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(x), "rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    found = numbers(ValidationVideo(7, 5, WHOLE)(tmp_path / "a.mkv", generator(0)))
    assert found[:6] == [0, 2, 3, 3, 5, 7]


def test_a_draw_opens_the_file_once_and_decodes_little_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.mp4", generated_film(0, 0, 16, 600, 60), 25)
    opened, decoded, drawn = [], [], []
    for name, calls in (("rewind", opened), ("next", decoded), ("draw", drawn)):
        method = getattr(Container, name)
        monkeypatch.setattr(Container, name, lambda self, *a, m=method, c=calls: (c.append(1), m(self, *a))[1])
    media, before = TrainingVideo([9], [12.5], WHOLE), 0
    for i in range(12):
        media(tmp_path / "a.mp4", generator(i))
        assert len(decoded) - before < 250 + 2 * 9 + 5, "of 600 frames, of which every 250th is a key frame"
        before = len(decoded)
    assert len(opened) == 12 and len(drawn) == 12 * 9


# ---- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_damaged_clips_are_skipped_counted_and_replaced(
    folder: Path, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    module = module_of(folder, workers=workers)
    assert len(module.train_set) == 9
    with caplog.at_level(logging.WARNING):
        batches = first(module, 6)
        module.train_set.report()
    keys = {key for batch in batches for key in batch["key"]}
    # The cut one has a good begin, from which some draws get their clip.
    assert keys - {"b/cut.mp4"} == {"a/0.mp4", "b/1.webm", "a/2.mkv", "b/3.gif", "a/4.mp4", "b/5.mp4", "frames"}
    assert all(batch["x"].shape == (4, 3, 9, 16, 16) for batch in batches)
    assert module.skipped == 2 and "skipped 2 of 9 clips" in caplog.text and "nothing.webm" in caplog.text
    (folder / "only").mkdir()
    (folder / "only/a.mp4").write_bytes(b"damage")
    with pytest.raises(InputError, match=r"1 files in a row .* cannot be used, the first: "):
        first(module_of(folder / "only"), 1)


def test_folders_of_frames_are_clips_where_no_clips_lie_beside(folder: Path) -> None:
    image.write(folder / "a/cover.png", generated_film(0, 0, 16, 1)[:, 0])
    keys = set(module_of(folder).train_set.keys.tolist())
    assert b"frames" in keys and b"a" not in keys and b"." not in keys and len(keys) == 9
    assert module_of(folder / "frames").train_set.keys.tolist() == [b"."]
    assert first(module_of(folder / "frames"), 1)[0]["x"].shape == (4, 3, 9, 16, 16)
    lines = '{"path": "frames", "duration": 3.0}\n{"path": "a/2.mkv", "fps": 30, "duration": 1.3}\n'
    (folder / "list.jsonl").write_text(lines)
    assert {key for b in first(module_of(folder / "list.jsonl"), 2) for key in b["key"]} == {"frames", "a/2.mkv"}
    assert len(module_of(folder / "list.jsonl", segment=0.5).train_set) == 6 + 2
    assert len(module_of(folder, segment=1.0).train_set) == 3 * 2 + 6  # 0.mp4, 3.gif and cut.mp4 are two seconds long
    with pytest.raises(InputError, match="nothing to read"):
        module_of(folder / "empty" if (folder / "empty").mkdir() is None else folder)


def test_validation_keeps_the_lengths_of_short_clips(folder: Path) -> None:
    module = module_of(folder, val_root=str(folder), val_frames=17, batch_size=9)
    (batch,) = module.val_dataloader()
    lengths = dict(zip(batch["key"], batch["lengths"].tolist(), strict=True))
    assert lengths == {
        "a/0.mp4": 17, "b/1.webm": 17, "a/2.mkv": 17, "b/3.gif": 17, "a/4.mp4": 9, "b/5.mp4": 5, "frames": 14,
    }  # fmt: skip
    assert batch["x"].shape == (7, 3, 17, 16, 16) and batch["x"].is_contiguous() and 0.5 < batch["x"].max() <= 1
    assert all(not x[:, n:].any() for x, n in zip(batch["x"], batch["lengths"], strict=True))
    module = module_of(folder, val_root=str(folder), val_frames=5, batch_size=9)
    assert all("lengths" not in b and b["x"].shape[2] == 5 for b in module.val_dataloader())
    held = module_of(folder, val_fraction=0.3)
    assert len(held.val_set) == 3 and not set(held.train_set.keys) & set(held.val_set.keys)


def test_all_frames_are_transformed_alike() -> None:
    still = (generated_film(0, 3, 40, 1)[:, :, :30] * 255).byte()
    clip = still.expand(3, 6, 30, 40)
    for transform in (ResizeShorter(20), RandomCrop(20), CentreCrop(20), RandomResizedCrop(16, (0.3, 1.0)), Flip(1.0)):
        x = transform(clip, generator(1))
        assert x.dtype == torch.uint8 and all(torch.equal(x[:, 0], x[:, t]) for t in range(6))
        assert torch.equal(x[:, 0], transform(still[:, 0], generator(1)))  # as of a picture
    assert ResizeShorter(20)(clip, generator(0)).shape == (3, 6, 20, 26)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"frames": []}, "lengths of at least 1"),
        ({"frames": [0, 5]}, "lengths of at least 1"),
        ({"rates": []}, "rates must hold"),
        ({"rates": [0]}, "above 0"),
        ({"rates": [[9, 3]]}, "rising"),
        ({"val_frames": 0}, "val_frames"),
        ({"segment": 0.0}, "segment must be above 0"),
    ],
)
def test_what_makes_no_sense_is_told(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        VideoFolder(str(tmp_path), **given)


# ---- shards ----------------------------------------------------------------------------------------------------------


def test_video_shards(folder: Path) -> None:
    for s in range(2):
        with tarfile.open(folder / f"set-{s}.tar", "w") as tar:
            for i, path in enumerate(sorted(folder.glob("[ab]/*"))):
                for name, data in ((path.name, path.read_bytes()), ("txt", b"a caption")):
                    entry = tarfile.TarInfo(f"{s}{i:02}.{name.split('.')[-1]}")
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))
    urls = str(folder / "set-{0..1}.tar")
    given = {"frames": [3, 7], "image_size": 16, "batch_size": 3, "val_urls": urls, "val_frames": 7, "shuffle": 3}
    for workers in (0, 2):
        module = VideoWebDataset(urls, workers=workers, text="txt", **given)  # type: ignore[arg-type]
        module.setup()
        batches = first(module, 8)
        assert {tuple(b["x"].shape) for b in batches} == {(3, 3, 3, 16, 16), (3, 3, 7, 16, 16)}
        assert all(b["text"] == ["a caption"] * 3 for b in batches) and module.skipped > 0
        assert len({key for b in batches for key in b["key"]} - {"006", "106"}) == 12  # these are cut.mp4
        validated = list(module.val_dataloader())
        assert sum(len(b["key"]) for b in validated) == 12 and any("lengths" in b for b in validated)
    ranks = []
    for rank in range(2):
        shards = TrainingShards(module.train_set.reader, 3, 0, 3, 0, (rank, 2))
        ranks.append([b["x"].shape[2] for b in islice(shards, 8)])
    assert ranks[0] == ranks[1] and set(ranks[0]) == {3, 7}


# ---- pictures among clips --------------------------------------------------------------------------------------------


def joint(share: float = 0.3, **changes: Any) -> JointModule:
    clips = GeneratedVideo(**({"image_size": 16, "frames": 3, "batch_size": 2, "n_train": 7, "workers": 0} | changes))
    pictures = GeneratedPictures(image_size=16, batch_size=5, n_train=9, workers=0)
    module = JointModule(clips, pictures, share)
    module.setup()
    return module


def test_batches_are_of_one_kind_and_pictures_have_their_share() -> None:
    batches = first(joint(), 40)  # type: ignore[arg-type]
    kinds = [tuple(b["x"].shape) for b in batches]
    assert set(kinds) == {(2, 3, 3, 16, 16), (5, 3, 1, 16, 16)}
    still = [kind[2] == 1 for kind in kinds]
    assert [sum(still[:n]) for n in range(41)] == [int(n * 0.3) for n in range(41)]
    for kind, n in ((True, 9), (False, 7)):  # each module goes through all of its samples before it comes to one again
        keys = [key for b, s in zip(batches, still, strict=True) if s == kind for key in b["key"]]
        assert all(len(set(keys[i : i + n])) == n for i in range(0, len(keys) - n, n))
    (val,) = {b["x"].shape[2] for b in joint().val_dataloader()}
    assert val == 3 and joint().skipped == 0 and joint(workers=1).workers == 1
    for wrong in (0.0, 1.0, -0.5):
        with pytest.raises(ConfigError, match="above 0 and below 1"):
            joint(wrong)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("workers", [0, 1])
def test_joint_training_resumes_with_exactly_the_next_batch(tmp_path: Path, workers: int) -> None:
    from test_data import Steps, fit

    expected = first(joint(), 11)  # type: ignore[arg-type]
    model, data = Steps.make(), joint(workers=workers)
    trainer = fit(model, data, tmp_path, 5)  # type: ignore[arg-type]
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    assert same(model.seen, expected[:5])
    assert data.batches == 5 and (data.clips.draws, data.pictures.draws) == (4 * 2, 1 * 5)
    again, data = Steps.make(), joint(workers=workers)
    fit(again, data, tmp_path, 11, tmp_path / "run.ckpt")  # type: ignore[arg-type]
    assert same(again.seen, expected[5:])
    assert data.batches == 11 and (data.clips.draws, data.pictures.draws) == (8 * 2, 3 * 5)
    state = data.state_dict()
    third = joint()
    third.load_state_dict(state)
    assert third.state_dict() == state and same(first(third, 2), first(joint(), 13)[11:])  # type: ignore[arg-type]


# ---- configuration and real data -------------------------------------------------------------------------------------


def test_configurations_build_and_name_every_argument(tmp_path: Path) -> None:
    clips = {"_target_": "codeczoo.data.generated_video.GeneratedVideo"}
    given: tuple[tuple[str, type, dict[str, Any]], ...] = (
        ("generated_video", GeneratedVideo, {}),
        ("video_folder", VideoFolder, {"root": str(tmp_path)}),
        ("video_webdataset", VideoWebDataset, {"urls": "a.tar"}),
        ("joint", JointModule, {"clips": clips, "pictures": clips}),
    )
    for name, cls, required in given:
        tree = yaml.safe_load((ROOT / f"conf/data/{name}.yaml").read_text())
        assert {key for key, value in tree.items() if value == "???"} == set(required)
        assert isinstance(build(tree | required), cls)
        parameters = inspect.signature(cls).parameters
        assert list(tree) == ["_target_", *parameters]
        for key, parameter in parameters.items():
            default = list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
            assert key in required or default == tree[key], f"{name}: {key}"


def test_real_video() -> None:
    root = SHARED / "data" / "video"
    if not root.is_dir():
        pytest.skip(f"no video at {root}")
    module = module_of(root / "train.jsonl", frames=[9], image_size=32, rates=[[6, 12]], val_root=str(root / "val"))
    batches = first(module, 3)
    assert all(b["x"].shape == (4, 3, 9, 32, 32) and b["x"].std() > 0.05 for b in batches)
    assert module.skipped == 0
    pictures = SHARED / "data" / "images"
    mixed = JointModule(module, ImageFolder(str(pictures), image_size=32, batch_size=2, workers=0), 0.5)
    mixed.setup()
    assert [b["x"].shape[2] for b in first(mixed, 4)] == [9, 1, 9, 1]  # type: ignore[arg-type]
