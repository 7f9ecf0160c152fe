"""Latents on disk: they are those of the view that comes with them, and of no other autoencoder."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("lightning")
pytest.importorskip("hydra")

import codeczoo
from codeczoo.cli.main import main
from codeczoo.core.errors import ConfigError, InputError
from codeczoo.data.cached_latents import CachedLatents
from codeczoo.data.latents import LatentIndex
from codeczoo.data.pictures import generated_picture
from codeczoo.data.sampling import Draw
from codeczoo.engine.compose import compose
from codeczoo.engine.run import train
from codeczoo.image import kl_vae
from codeczoo.image.flextok import FlexTok
from codeczoo.io.image import write

CONFIG = {"block_out_channels": [8, 8], "layers_per_block": 1, "norm_num_groups": 4, "latent_channels": 3}
PICTURES, VIEWS = 7, 3


class Place:
    """Pictures, one of them broken, two autoencoders, and the latents of the first."""

    def __init__(self, root: Path) -> None:
        self.root, self.pictures, self.cache = root, root / "pictures", root / "cache"
        for i in range(PICTURES):
            write(self.pictures / "deep" / f"p{i}.png", generated_picture(1, i, 40)[:, :24])
        (self.pictures / "broken.png").write_bytes(b"no picture")
        self.vaes = [self.autoencoder(seed) for seed in (0, 1)]
        arguments = ["--size", "16", "--views", str(VIEWS), "--workers", "0", "--batch", "5"]
        self.command = ["latents", str(self.pictures), "--vae", str(self.path(0)), *arguments, "-o"]

    def path(self, seed: int) -> Path:
        return self.root / f"vae{seed}.safetensors"

    def autoencoder(self, seed: int) -> Any:
        torch.manual_seed(seed)
        vae = codeczoo.build(kl_vae.original_tree(CONFIG | {"scaling_factor": 0.5, "shift_factor": 0.1})).eval()
        for p in vae.parameters():
            torch.nn.init.normal_(p, std=0.15) if p.ndim > 1 else None
        codeczoo.save(self.path(seed), vae)
        return vae

    def module(self, vae: Any, **options: Any) -> CachedLatents:
        """Set up for a codec with this autoencoder."""
        module = CachedLatents(str(self.cache), **({"image_size": 16, "batch_size": 4, "workers": 0} | options))
        codec = torch.nn.ModuleDict({} if vae is None else {"vae": vae})
        module.trainer, module.counter = SimpleNamespace(lightning_module=SimpleNamespace(codec=codec)), lambda: 0
        module.setup()
        return module


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    found = Place(tmp_path_factory.mktemp("latents"))
    assert main([*found.command, str(found.cache)]) == 1  # of the broken picture
    return found


def test_the_command_tells_what_it_found(place: Place, capsys: Any) -> None:
    out = place.root / "again"
    assert main([*place.command, str(out), "--json"]) == 1
    said = capsys.readouterr()
    report = json.loads(said.out)
    assert report["encoded"] == PICTURES
    assert [f["path"] for f in report["failed"]] == [str(place.pictures / "broken.png")]
    latents, index = np.load(out / "latents.npy"), LatentIndex.read(out)
    assert latents.shape == (VIEWS, PICTURES + 1, 3, 8, 8) and latents.dtype == np.float16
    good = latents[:, [key is not None for key in index.keys]].astype(np.float64)
    assert index.std == pytest.approx(good.std(), rel=1e-2) and index.mean == pytest.approx(good.mean(), abs=1e-3)
    assert float(report["codec.vae.scale"]) == pytest.approx(1 / index.std, rel=1e-2)
    assert np.array_equal(latents, np.load(place.cache / "latents.npy"))  # the same command, the same latents


def test_batches_hold_the_latents_of_their_pictures(place: Place) -> None:
    vae = place.vaes[0]
    loader = place.module(vae).train_dataloader()
    seen = set()
    for batch, _ in zip(loader, range(12), strict=False):
        assert batch["x"].shape == (4, 3, 16, 16) and batch["latents"].dtype == torch.float32
        with torch.no_grad():
            assert torch.allclose(batch["latents"], vae.latents(batch["x"]), atol=2e-3)
        seen |= {(key, x.sum().item()) for key, x in zip(batch["key"], batch["x"], strict=True)}
    names = {key for key, _ in seen}
    assert len(names) == PICTURES and "broken.png" not in names
    assert len(seen) > 2 * PICTURES  # views


def test_views_depend_on_seed_and_draw_alone(place: Place) -> None:
    def first(**options: Any) -> torch.Tensor:
        return next(iter(place.module(place.vaes[0], **options).train_dataloader()))["latents"]

    assert torch.equal(first(), first(workers=1))
    sets = [place.module(place.vaes[0], seed=seed).train_set for seed in (0, 0, 1)]
    one, same, other = ([drawn[Draw(number, 2)]["latents"].sum() for number in range(9)] for drawn in sets)
    assert one == same != other and len({float(x) for x in one}) == VIEWS


def test_validation_pictures_come_from_their_folder(place: Place) -> None:
    batch = next(iter(place.module(place.vaes[0], val_root=str(place.pictures / "deep")).val_dataloader()))
    assert batch["x"].shape == (4, 3, 16, 16) and "latents" not in batch


def test_pictures_that_moved_are_found_by_root(place: Place, tmp_path: Path) -> None:
    shutil.copytree(place.pictures, tmp_path / "moved")
    modules = (place.module(place.vaes[0], root=root) for root in (None, str(tmp_path / "moved")))
    one, other = (next(iter(module.train_dataloader())) for module in modules)
    assert torch.equal(one["x"], other["x"])


def test_other_autoencoders_and_sizes_are_refused(place: Place) -> None:
    with pytest.raises(ConfigError, match=r"are of an autoencoder with weights .*makes them anew"):
        place.module(place.vaes[1])
    with pytest.raises(ConfigError, match="has 0 KL autoencoders"):
        place.module(None)
    with pytest.raises(ConfigError, match="are of 16 px, wanted 32"):
        place.module(place.vaes[0], image_size=32)


def test_a_spread_far_from_1_is_told(place: Place, caplog: Any) -> None:
    index = LatentIndex.read(place.cache)
    vae = place.autoencoder(0)
    vae.scale = 10 / index.std
    place.module(vae)
    assert f"spread of 10; codec.vae.scale={1 / index.std:.3g} brings it to 1" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--size", "15"], "--size must be a multiple of 2"),
        (["--vae", "nowhere.safetensors"], "nowhere.safetensors: no such file"),
    ],
)
def test_bad_wishes_are_one_line(place: Place, change: list[str], message: str, tmp_path: Path, capsys: Any) -> None:
    assert main([*place.command, str(tmp_path / "out"), *change]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1 and not (tmp_path / "out").exists()


def test_codecs_are_no_autoencoders_to_cache(place: Place, tiny_codec: Any, tmp_path: Path, capsys: Any) -> None:
    codeczoo.save(tmp_path / "codec.safetensors", tiny_codec)
    assert main([*place.command, str(tmp_path / "out"), "--vae", str(tmp_path / "codec.safetensors")]) == 2
    assert "OneDPiece is no KL autoencoder" in capsys.readouterr().err


def test_folders_without_pictures_or_index_are_refused(place: Place, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"no picture")
    command = place.command.copy()
    command[1] = str(tmp_path / "in")
    assert main([*command, str(tmp_path / "out")]) == 2
    assert "none of the 1 pictures" in capsys.readouterr().err and not list((tmp_path / "out").glob("*"))
    with pytest.raises(InputError, match="`codeczoo latents` writes such a folder"):
        CachedLatents(str(tmp_path / "out"))
    (tmp_path / "index.json").write_text("{}")
    with pytest.raises(InputError, match="no index of latents"):
        CachedLatents(str(tmp_path))


# --- in training ----------------------------------------------------------------------------------------------------

SHORT = [
    "data=latents", "data.image_size=16", "data.workers=0", "data.batch_size=4", "logger=none", "trainer.max_steps=3",
    "trainer.val_check_interval=3", "codec.sampling.steps=1", "codec.encoder.side=8", "codec.vae.encoder.width=8",
    "codec.vae.encoder.multipliers=[1,1]", "codec.vae.encoder.n_resize=1", "codec.vae.encoder.dim=6",
    "codec.vae.decoder.dim=3",
]


def recipe(place: Place, seed: int) -> dict[str, Any]:
    """A tiny FlexTok over the latents, which begins with one of the autoencoders."""
    parts = "{encoder: vae.encoder, decoder: vae.decoder}"
    start = f"{{_target_: codeczoo.engine.parts.WarmStart, path: {place.path(seed)}, prefixes: {parts}}}"
    where = [f"data.cache={place.cache}", f"data.val_root={place.pictures / 'deep'}"]
    return compose("image/flextok_tiny", [*SHORT, *where, f"+task.warm_start.vae={start}"])


def test_flextok_trains_on_latents_and_keeps_its_autoencoder(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []
    forward = FlexTok.forward

    def spy(self: FlexTok, x: torch.Tensor, *, pixels: bool = True, latents: torch.Tensor | None = None) -> Any:
        given.append(latents)
        return forward(self, x, pixels=pixels, latents=latents)

    monkeypatch.setattr(FlexTok, "forward", spy)
    codec = codeczoo.load(train(recipe(place, 0), tmp_path).folder)
    assert [latents.shape for latents in given] == [(4, 3, 8, 8)] * 3
    kept = place.vaes[0].state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in codec.vae.state_dict().items())


def test_training_with_another_autoencoder_is_refused(place: Place, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="makes them anew"):
        train(recipe(place, 1), tmp_path)
