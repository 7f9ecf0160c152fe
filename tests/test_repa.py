"""REPA: patches of DINOv2 as features, and a flow decoder that is aligned with them."""

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("hydra")

import transformers

import codeczoo
from codeczoo.core.errors import InputError, MissingError, WeightsError
from codeczoo.core.types import Reconstruction
from codeczoo.engine.compose import compose
from codeczoo.engine.run import train
from codeczoo.losses.distill import CosineDistillation
from codeczoo.losses.vision_teachers import MEAN, STD, DinoV2

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 7}
KINDS = {"plain": ("Dinov2", {}), "registers": ("Dinov2WithRegisters", {"num_register_tokens": 3})}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small random DINOv2s in the layout of transformers."""
    root, found = tmp_path_factory.mktemp("dino"), {}
    for kind, (name, more) in KINDS.items():
        torch.manual_seed(0)
        config = getattr(transformers, f"{name}Config")(**SIZES, **more)
        getattr(transformers, f"{name}Model")(config).save_pretrained(root / kind)
        found[kind] = root / kind
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_the_patches_behind_the_last_norm(folders: dict[str, Path], kind: str) -> None:
    teacher, x = DinoV2(folders[kind], side=4).eval(), torch.rand(2, 3, 28, 28)
    model = transformers.AutoModel.from_pretrained(folders[kind]).eval()
    with torch.no_grad():
        found = teacher(x)
        states = model((x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)).last_hidden_state
    skipped = states.shape[1] - 16
    assert skipped == {"plain": 1, "registers": 4}[kind] and found.shape == (2, 16, 4, 4)
    for row in range(4):
        for column in range(4):
            assert torch.allclose(found[:, :, row, column], states[:, skipped + 4 * row + column], atol=1e-5)


def test_pictures_of_any_size_have_the_codecs_grid(folders: dict[str, Path]) -> None:
    teacher = DinoV2(folders["plain"], side=6).eval()
    with torch.no_grad():
        assert teacher(torch.rand(1, 3, 64, 64)).shape == (1, 16, 6, 6)


def test_a_missing_or_wrong_teacher_is_one_line(folders: dict[str, Path], tmp_path: Path) -> None:
    for folder, where in ((None, "no folder is given"), (tmp_path, "there is no .*config.json")):
        with pytest.raises(MissingError, match=f"{where}.*dinov2-large.*objective=flow"):
            DinoV2(folder, side=4)
    config = transformers.BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    transformers.BertModel(config).save_pretrained(tmp_path / "bert")
    with pytest.raises(WeightsError, match="a BertModel, wanted DINOv2"):
        DinoV2(tmp_path / "bert", side=4)


def test_other_grids_and_channels_are_refused(folders: dict[str, Path]) -> None:
    term, x = CosineDistillation(DinoV2(folders["plain"], side=4)), torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        same = term.teacher.net(x)
    assert term(x, Reconstruction(None, features=3 * same)).item() == pytest.approx(0, abs=1e-5)
    assert term(x, Reconstruction(None, features=-same)).item() == pytest.approx(2, abs=1e-5)
    for shape in ((2, 16, 2, 8), (2, 15, 4, 4), (2, 16, 16), (2, 16, 4, 3)):
        with pytest.raises(InputError, match=r"the teacher gives .2, 16, 4, 4., the codec"):
            term(x, Reconstruction(None, features=torch.rand(shape)))


# --- in training ----------------------------------------------------------------------------------------------------

REPA = [
    "objective=flow_repa", "codec=flextok_repa", "codec.decoder.align.dim=16",
    "codec.decoder.align.layer=1", "codec.decoder.align.hidden=24",
]
SHORT = ["data.workers=0", "data.batch_size=4", "data.n_val=2", "logger=none", "trainer.max_steps=3",
         "trainer.val_check_interval=3", "codec.sampling.steps=1"]


def tree(*overrides: str) -> dict[str, Any]:
    return compose("image/flextok_tiny", [*SHORT, *overrides])


def test_flextok_is_trained_with_an_aligned_decoder(folders: dict[str, Path], tmp_path: Path) -> None:
    config = tree(*REPA, f"objective.terms.repa.teacher.folder={folders['plain']}")
    torch.manual_seed(config["seed"])
    before = codeczoo.build(config["codec"])
    outcome = train(config, tmp_path)
    after = codeczoo.load(outcome.folder)
    heads = [name for name, _ in after.named_parameters() if name.startswith("decoder.align.")]
    assert len(heads) == 6
    moved = [name for name in heads if not torch.equal(after.state_dict()[name], before.state_dict()[name])]
    assert moved == heads
    assert not [name for name in after.state_dict() if "teacher" in name or "network" in name]
    assert "train/repa" in (outcome.folder / "curve.csv").read_text() or outcome.step == 3


def test_without_the_term_there_is_no_head_and_no_teacher() -> None:
    codec = codeczoo.build(tree()["codec"])
    assert codec.decoder.align is None and not [n for n, _ in codec.named_parameters() if "align" in n]


def test_the_recipe_without_a_folder_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"no folder is given.*hf download facebook/dinov2-large"):
        train(tree(*REPA), tmp_path)
    assert not list(tmp_path.iterdir())


def test_gradients_reach_the_layers_in_front_of_the_head(folders: dict[str, Path]) -> None:
    codec = codeczoo.build(tree(*REPA)["codec"]).train()
    x = torch.rand(2, 3, 32, 32)
    term = CosineDistillation(DinoV2(folders["plain"], side=4))
    term(x, codec(x, pixels=False)).backward()
    grads = {name: p.grad is not None and bool(p.grad.any()) for name, p in codec.decoder.named_parameters()}
    assert all(grads[name] for name in grads if name.startswith("align."))
    assert grads["patches.embed.weight"] and not any(grads[n] for n in grads if n.startswith("blocks.1."))
