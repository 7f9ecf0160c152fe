"""Data modules: the same batches whatever the workers, ranks and interruptions; nothing lost, doubled or starved."""

import io
import json
import logging
import os
import signal
import tarfile
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from codeczoo.core.config import build
from codeczoo.core.errors import ConfigError, InputError
from codeczoo.data.pictures import generated_picture
from codeczoo.data.sampling import EndlessBatches, OrderedBatches, generator
from codeczoo.data.transforms import AspectFilter, CentreCrop, Chain, Flip, RandomCrop, RandomResizedCrop, ResizeShorter

pytest.importorskip("lightning", reason="data modules want codeczoo[train]")
pytest.importorskip("webdataset", reason="data modules want codeczoo[train]")

from batches import first, same

from codeczoo.data.generated import GeneratedPictures
from codeczoo.data.image_folder import ImageFolder
from codeczoo.data.media import Pictures
from codeczoo.data.module import DataModule
from codeczoo.data.shard_reader import ShardReader
from codeczoo.data.shards import TrainingShards, ValidationShards
from codeczoo.data.transforms import training_recipe, validation_recipe
from codeczoo.data.webdataset import WebDataset

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("CODECZOO_DATA", ROOT / "../shared/data"))


def jpeg(seed: int, size: tuple[int, int] = (40, 30)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve pictures at three depths; one is truncated and one is not a picture."""
    for i in range(12):
        file = tmp_path / ("a/b" if i % 3 == 0 else "c" if i % 3 == 1 else "") / f"{i:02}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(jpeg(i))
    (tmp_path / "c/01.jpg").write_bytes(jpeg(1)[:400])
    (tmp_path / "05.jpg").write_bytes(b"no picture")
    return tmp_path


def folder_module(root: Path, **changes: Any) -> ImageFolder:
    module = ImageFolder(**{"root": str(root), "image_size": 16, "batch_size": 5, "workers": 0, "seed": 3} | changes)
    module.setup()
    return module


# ---- order -----------------------------------------------------------------------------------------------------------


def test_batches_are_the_same_for_any_number_of_workers(folder: Path) -> None:
    expected = first(folder_module(folder), 6)
    for workers in (1, 2):
        assert same(first(folder_module(folder, workers=workers), 6), expected), f"{workers} workers"
    assert not same(first(folder_module(folder, seed=4), 6), expected)


def test_augmentation_changes_from_pass_to_pass(folder: Path) -> None:
    seen: dict[str, list[torch.Tensor]] = {}
    for batch in first(folder_module(folder), 12):
        for key, x in zip(batch["key"], batch["x"], strict=True):
            seen.setdefault(key, []).append(x)
    assert any(not torch.equal(views[0], view) for views in seen.values() for view in views[1:])


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_together_draw_what_one_process_draws(world: int) -> None:
    whole = list(islice(EndlessBatches(11, 4 * world, 0, 5, (0, 1)), 9))
    ranks = [list(islice(EndlessBatches(11, 4, 0, 5, (r, world)), 9)) for r in range(world)]
    assert [list(chain(*parts)) for parts in zip(*ranks, strict=True)] == whole


def test_every_pass_holds_every_sample_once_in_another_order() -> None:
    draws = list(chain.from_iterable(islice(EndlessBatches(10, 4, 0), 5)))
    assert [draw.number for draw in draws] == list(range(20))
    passes = [[d.sample for d in draws[:10]], [d.sample for d in draws[10:]]]
    assert sorted(passes[0]) == sorted(passes[1]) == list(range(10))
    assert passes[0] != passes[1]


@pytest.mark.parametrize(("length", "batch", "world"), [(10, 4, 1), (10, 4, 2), (17, 4, 2), (3, 8, 3), (9, 1, 2)])
def test_validation_splits_over_ranks_without_loss_or_doubles(length: int, batch: int, world: int) -> None:
    ranks = [list(OrderedBatches(length, batch, (r, world))) for r in range(world)]
    assert len({len(batches) for batches in ranks}) == 1
    assert all(len(b) == len(OrderedBatches(length, batch, (0, world))) for b in ranks)
    together = [draw.sample for step in zip(*ranks, strict=True) for part in step for draw in part]
    assert together == list(range(length))
    assert all(part for batches in ranks for part in batches)


def test_fewer_validation_samples_than_ranks_is_an_error() -> None:
    with pytest.raises(InputError, match="2 validation samples cannot be split over 3 ranks"):
        list(OrderedBatches(2, 4, (0, 3)))


def test_places_have_random_streams_of_their_own() -> None:
    draw = [float(torch.rand((), generator=generator(*place))) for place in ((0, 1, 2), (0, 2, 1), (1, 1, 2))]
    assert len(set(draw)) == 3
    assert draw[0] == float(torch.rand((), generator=generator(0, 1, 2)))


# ---- resume ----------------------------------------------------------------------------------------------------------


class Steps:
    """The smallest LightningModule, made inside a function so that importing this file stays quick."""

    @staticmethod
    def make(until: int | None = None) -> Any:
        from lightning.pytorch import LightningModule

        class Recorder(LightningModule):
            def __init__(self) -> None:
                super().__init__()
                self.layer, self.seen = torch.nn.Linear(1, 1), []

            def training_step(self, batch: dict[str, Any], index: int) -> torch.Tensor:
                if len(self.seen) == until:
                    raise KeyboardInterrupt
                self.seen.append(batch)
                return self.layer(batch["x"].mean()[None]).sum()

            def validation_step(self, batch: dict[str, Any], index: int) -> None:
                pass

            def configure_optimizers(self) -> torch.optim.Optimizer:
                return torch.optim.SGD(self.parameters(), 0.0)

        return Recorder()


def fit(model: Any, data: DataModule, folder: Path, steps: int, checkpoint: Path | None = None) -> Any:
    from lightning.pytorch import Trainer

    trainer = Trainer(
        max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder, use_distributed_sampler=False,
        val_check_interval=4, check_val_every_n_epoch=None,
    )  # fmt: skip
    trainer.fit(model, data, ckpt_path=checkpoint)
    return trainer


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("workers", [0, 2])
def test_resume_goes_on_with_exactly_the_next_batch(folder: Path, tmp_path: Path, workers: int) -> None:
    expected = first(folder_module(folder), 9)
    model, data = Steps.make(), folder_module(folder, workers=workers, val_fraction=0.0)
    trainer = fit(model, data, tmp_path, 4)
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    assert same(model.seen, expected[:4])
    assert data.draws == 4 * 5  # and not what the workers have read ahead
    again, data = Steps.make(), folder_module(folder, workers=workers)
    fit(again, data, tmp_path, 9, tmp_path / "run.ckpt")
    assert same(again.seen, expected[4:])
    assert data.draws == 9 * 5


@pytest.mark.filterwarnings("ignore")
def test_interrupted_step_is_done_again(folder: Path, tmp_path: Path) -> None:
    from lightning.pytorch import Trainer

    data = folder_module(folder)
    trainer = Trainer(max_steps=9, accelerator="cpu", logger=False, enable_checkpointing=False,
                      enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path)  # fmt: skip
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        trainer.fit(Steps.make(until=3), data)
    assert data.state_dict()["draws"] == 3 * 5


def test_workers_survive_ctrl_c(folder: Path) -> None:
    loader = folder_module(folder, workers=1).train_dataloader()
    batches = iter(loader)
    next(batches)
    os.kill(loader._iterator._workers[0].pid, signal.SIGINT)
    assert len(list(islice(batches, 10))) == 10


def test_state_goes_on_under_another_batch_size_and_world(folder: Path) -> None:
    module = folder_module(folder, batch_size=2)
    module.load_state_dict({"draws": 20, "seed": 3, "samples": 12})
    assert first(module, 1)[0]["key"] == first(folder_module(folder), 5)[4]["key"][:2]


def test_another_order_after_resume_is_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    module = folder_module(folder)
    module.load_state_dict({"draws": 20, "seed": 3, "samples": 99})
    with caplog.at_level(logging.WARNING):
        module.train_dataloader()
    assert "samples 12, was 99" in caplog.text


# ---- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_unusable_files_are_skipped_counted_and_replaced(
    folder: Path, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    module = folder_module(folder, workers=workers)
    batches = first(module, 8)
    keys = {key for batch in batches for key in batch["key"]}
    assert all(batch["x"].shape == (5, 3, 16, 16) for batch in batches)
    assert len(keys) == 10
    assert not keys & {"05.jpg", "c/01.jpg"}
    assert module.skipped == 2
    with caplog.at_level(logging.WARNING):
        module.train_set.report()
        module.train_set.report()
    assert caplog.text.count("05.jpg") == 1


def test_validation_drops_unusable_files_and_doubles_none(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    module = folder_module(folder, val_root=str(folder))
    with caplog.at_level(logging.WARNING):
        batches = list(module.val_dataloader())
    keys = [key for batch in batches for key in batch["key"]]
    assert len(keys) == len(set(keys)) == 10
    assert keys == sorted(keys)
    assert module.skipped == 2
    assert "c/01.jpg" in caplog.text


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_but_corrupt_files_is_one_clear_line(tmp_path: Path, workers: int) -> None:
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(InputError, match=r"3 files in a row in .* cannot be used, the first: ") as caught:
        first(folder_module(tmp_path, workers=workers), 1)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="nothing to read"):
        folder_module(tmp_path / "none" if (tmp_path / "none").mkdir() is None else tmp_path)


def test_every_kind_of_picture_loads_as_rgb(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (20, 40, 3), dtype=np.uint8)
    turned = Image.Exif()
    turned[274] = 6  # show turned by 90 degrees
    Image.fromarray(rgb).save(tmp_path / "exif.jpg", exif=turned)
    Image.fromarray(rgb[..., 0]).save(tmp_path / "grey.png")
    Image.fromarray(np.dstack([rgb, rgb[..., :1]])).save(tmp_path / "alpha.webp", lossless=True)
    Image.fromarray(rgb[..., 0].astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray(np.dstack([rgb, rgb[..., :1]]), mode="CMYK").save(tmp_path / "print.jpg")
    Image.fromarray(rgb).save(tmp_path / "plain.avif")
    Image.fromarray(rgb).convert("P").save(tmp_path / "palette.PNG")
    batch = next(iter(folder_module(tmp_path, batch_size=7, val_root=str(tmp_path)).val_dataloader()))
    assert batch["x"].shape == (7, 3, 16, 16)
    assert batch["x"].dtype == torch.float32
    assert 0 <= batch["x"].min() < batch["x"].max() <= 1
    wide = ImageFolder(str(tmp_path), batch_size=1, workers=0, train_transform=Chain([]), val_root=str(tmp_path))
    wide.setup()
    shapes = {batch["key"][0]: tuple(batch["x"].shape[2:]) for batch in islice(wide.train_dataloader(), 7)}
    assert shapes.pop("exif.jpg") == (40, 20)
    assert set(shapes.values()) == {(20, 40)}


def test_held_out_files_are_not_trained_on(folder: Path) -> None:
    module = folder_module(folder, val_fraction=0.25)
    train, val = set(module.train_set.keys), set(module.val_set.keys)
    assert len(val) == 3
    assert not train & val
    assert len(train | val) == 12
    assert set(folder_module(folder, val_fraction=0.25).val_set.keys) == val
    with pytest.raises(ConfigError, match="val_root or a val_fraction"):
        ImageFolder(str(folder), val_root="x", val_fraction=0.5)


# ---- transforms ------------------------------------------------------------------------------------------------------


def test_transforms_keep_uint8_and_hit_the_size() -> None:
    image = torch.arange(3 * 50 * 70, dtype=torch.int64).remainder(256).to(torch.uint8).view(3, 50, 70)
    random = generator(0)
    assert ResizeShorter(25)(image, random).shape == (3, 25, 35)
    assert ResizeShorter(25)(image.mT, random).shape == (3, 35, 25)
    assert torch.equal(CentreCrop(20)(image, random), image[:, 15:35, 25:45])
    crops = [RandomCrop(48)(image, random) for _ in range(30)]
    assert len({tuple(crop[0, 0, :2].tolist()) for crop in crops}) > 10
    assert torch.equal(Flip(1.0)(image, random), image.flip(-1))
    assert torch.equal(Flip(0.0)(image, random), image)
    flipped = sum(torch.equal(Flip()(image, random), image) for _ in range(400))
    assert 150 < flipped < 250
    for transform in (training_recipe(24), validation_recipe(24), RandomResizedCrop(24, (0.2, 1.0))):
        out = transform(image, random)
        assert out.shape == (3, 24, 24)
        assert out.dtype == torch.uint8


def test_pictures_that_do_not_fit_are_refused() -> None:
    image = torch.zeros(3, 10, 40, dtype=torch.uint8)
    with pytest.raises(InputError, match="no 16x16 crop"):
        RandomCrop(16)(image, generator(0))
    with pytest.raises(InputError, match="aspect <= 2"):
        AspectFilter(2.0, 32)(image, generator(0))
    assert AspectFilter(4.0, 32)(image, generator(0)) is image


# ---- shards ----------------------------------------------------------------------------------------------------------


def write_shard(path: Path, numbers: range, broken: int | None = None) -> None:
    with tarfile.open(path, "w") as tar:
        for i in numbers:
            parts = {"jpg": b"broken" if i == broken else jpeg(i), "txt": f"picture {i}\n".encode(),
                     "json": json.dumps({"caption": f"json {i}"}).encode()}  # fmt: skip
            for suffix, data in parts.items():
                info = tarfile.TarInfo(f"{i:03}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


@pytest.fixture
def shards(tmp_path: Path) -> str:
    for s in range(4):
        write_shard(tmp_path / f"set-{s}.tar", range(s * 5, s * 5 + 5), broken=7)
    return str(tmp_path / "set-{0..3}.tar")


def shard_module(urls: str, **changes: Any) -> WebDataset:
    module = WebDataset(**{"urls": urls, "image_size": 16, "batch_size": 4, "workers": 0, "text": "txt"} | changes)
    module.setup()
    return module


@pytest.mark.parametrize("workers", [0, 2])
def test_shards_are_read_with_captions(shards: str, workers: int) -> None:
    module = shard_module(shards, workers=workers, shuffle=3)
    for batch in first(module, 12):
        assert batch["x"].shape == (4, 3, 16, 16)
        assert batch["text"] == [f"picture {int(key)}" for key in batch["key"]]
    assert module.skipped > 0
    assert first(shard_module(shards, text="json.caption"), 1)[0]["text"][0].startswith("json ")
    assert "text" not in first(shard_module(shards, text=None), 1)[0]


def test_each_pass_sees_each_sample_once_over_ranks_and_workers(shards: str) -> None:
    def keys(rank: int, world: int, n: int) -> list[str]:
        reader = ShardReader(shard_module(shards).shards, Pictures(training_recipe(16)), None, 0)
        return [s["key"] for s in islice(TrainingShards(reader, 4, 0, 3, 0, (rank, world)).samples(), n)]

    assert len(set(keys(0, 1, 19))) == 19
    assert keys(0, 1, 19) != keys(0, 1, 38)[19:]
    rank0, rank1 = set(keys(0, 2, 9)), set(keys(1, 2, 9))
    assert not rank0 & rank1


@pytest.mark.parametrize("world", [1, 2, 3])
def test_validation_shards_lose_and_double_nothing(shards: str, world: int) -> None:
    ranks = []
    for r in range(world):
        reader = ShardReader(shard_module(shards).shards, Pictures(validation_recipe(16)), "txt", 0)
        ranks.append([batch["key"] for batch in ValidationShards(reader, 3, (r, world))])
    assert len({len(batches) for batches in ranks}) == 1
    together = [key for step in zip(*ranks, strict=True) for part in step for key in part]
    assert together == [f"{i:03}" for i in range(20) if i != 7]


def test_too_few_shards_missing_shards_and_damaged_shards(shards: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"set data\.workers to at most 4"):
        shard_module(shards, workers=5).train_dataloader()
    with pytest.raises(InputError, match="no such shard"):
        shard_module(str(tmp_path / "set-{0..9}.tar"))
    with tarfile.open(tmp_path / "set-0.tar") as tar:
        end = tar.getmember("003.jpg").offset_data + 100
    (tmp_path / "half.tar").write_bytes((tmp_path / "set-0.tar").read_bytes()[:end])
    module = shard_module(shards, val_urls=str(tmp_path / "half.tar"))
    keys = [key for batch in module.val_dataloader() for key in batch["key"]]
    assert keys == ["000", "001"]  # 002 might have had more files
    assert module.skipped == 1
    (tmp_path / "bad.tar").write_bytes(b"not a tar file" * 100)
    with pytest.raises(InputError, match="no usable sample"):
        first(shard_module(str(tmp_path / "bad.tar")), 1)


def test_resumed_shards_take_a_fresh_order_and_say_so(shards: str, caplog: pytest.LogCaptureFixture) -> None:
    module = shard_module(shards)
    before = [batch["key"] for batch in first(module, 4)]
    module.load_state_dict({"draws": 8, "seed": 0, "shards": 4})
    with caplog.at_level(logging.WARNING):
        after = [batch["key"] for batch in first(module, 4)]
    assert before != after
    assert "fresh order" in caplog.text


# ---- generated pictures ----------------------------------------------------------------------------------------------


def test_generated_pictures_are_fixed_varied_and_alike_at_every_size() -> None:
    album = torch.stack([generated_picture(0, i, 32) for i in range(40)])
    assert album.dtype == torch.float32
    assert 0 <= album.min() < album.max() <= 1
    assert torch.equal(album[7], generated_picture(0, 7, 32))
    assert not torch.equal(album[7], generated_picture(1, 7, 32))
    assert (album.flatten(1).std(1) > 0.03).all(), "every picture has contrast"
    means = album.flatten(2).mean(2)  # (40, 3)
    assert (torch.cdist(means, means) + torch.eye(40) > 1e-3).all(), "no two pictures are the same"
    large = torch.nn.functional.avg_pool2d(generated_picture(0, 7, 128), 4)
    assert (large - album[7]).abs().mean() < 0.02


def test_generated_module_keeps_training_and_validation_apart() -> None:
    module = GeneratedPictures(image_size=16, batch_size=4, n_train=6, n_val=5, workers=0)
    module.setup()
    train = {key for batch in first(module, 6) for key in batch["key"]}
    val = [key for batch in module.val_dataloader() for key in batch["key"]]
    assert len(train) == 6
    assert len(set(val)) == len(val) == 5
    assert not train & set(val)


# ---- configuration and real data -------------------------------------------------------------------------------------


def test_configurations_build_and_name_every_argument(folder: Path, shards: str) -> None:
    import inspect

    for name, cls, required in (
        ("image_folder", ImageFolder, {"root": str(folder)}),
        ("webdataset", WebDataset, {"urls": shards}),
        ("generated", GeneratedPictures, {}),
    ):
        tree = yaml.safe_load((ROOT / f"conf/data/{name}.yaml").read_text())
        assert {key for key, value in tree.items() if value == "???"} == set(required)
        assert isinstance(build(tree | required), cls)
        parameters = inspect.signature(cls).parameters
        assert list(tree) == ["_target_", *parameters]
        for key, parameter in parameters.items():
            assert key in required or parameter.default == tree[key], f"{name}: {key}"


def test_real_photographs() -> None:
    root = DATA / "images"
    if not root.is_dir():
        pytest.skip(f"no photographs at {root}; set CODECZOO_DATA")
    module = ImageFolder(str(root / "train"), image_size=64, batch_size=16, val_root=str(root / "val"), workers=0)
    module.setup()
    batch = first(module, 1)[0]
    assert batch["x"].shape == (16, 3, 64, 64)
    assert 0.2 < batch["x"].mean() < 0.8
    keys = [key for b in module.val_dataloader() for key in b["key"]]
    assert keys == sorted(path.name for path in (root / "val").iterdir())
    assert module.skipped == 0
