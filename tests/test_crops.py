"""Words and faces in what was decoded: crops are where they should be, and networks are asked about them."""

import json
from math import cos, sin
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import one_d_piece_tree
from PIL import Image
from test_cli import one_line, run
from torch import Tensor, nn

import codeczoo
from codeczoo import zoo
from codeczoo.export.crops import whole
from codeczoo.export.sources import Sample
from codeczoo.io import image
from codeczoo.io.files import Found
from codeczoo.metrics.crops import FACE, POINTS, edit_distance, face_crop, similarity, text_crop, text_ned


def test_edit_distances() -> None:
    for a, b, wanted in (("kitten", "sitting", 3), ("", "abc", 3), ("abc", "abc", 0), ("ab", "ba", 2)):
        assert edit_distance(a, b) == edit_distance(b, a) == wanted
    assert text_ned("Tiredness", "Treeneas") == pytest.approx(1 - edit_distance("Tiredness", "Treeneas") / 9)
    assert text_ned("", "") == text_ned("a", "a") == 1 and text_ned("ab", "cd") == 0


def test_words_keep_their_shape_and_the_rest_is_black() -> None:
    picture = torch.zeros(3, 60, 200)
    picture[:, 10:20, 40:60] = 1
    crop = text_crop(picture, (40, 10, 60, 20))  # 10 x 20 becomes 32 x 64
    assert crop is not None and crop.shape == (3, 32, 128)
    assert (crop[:, :, :64] > 0.99).all() and not crop[:, :, 64:].any()
    long = text_crop(picture, (0, 10, 200, 20))  # 10 x 200 becomes 6 x 128
    assert long is not None and long[:, :6].any() and not long[:, 6:].any()
    for box in ((-1, 0, 5, 5), (0, 0, 201, 5), (0, 50, 5, 61), (5, 5, 5, 9)):
        assert text_crop(picture, box) is None


def test_faces_are_turned_to_where_networks_want_them() -> None:
    angle, scale = 0.4, 0.7
    turn = torch.tensor([[cos(angle), -sin(angle)], [sin(angle), cos(angle)]], dtype=torch.float64) * scale
    points = torch.tensor(POINTS, dtype=torch.float64) @ turn.T + torch.tensor([60.0, 20.0])
    found = similarity(torch.tensor(POINTS, dtype=torch.float64), points)
    torch.testing.assert_close(found, torch.cat([turn, torch.tensor([[60.0], [20.0]])], 1).double())
    mirrored = torch.tensor(POINTS, dtype=torch.float64) * torch.tensor([-1.0, 1.0])
    assert torch.linalg.det(similarity(torch.tensor(POINTS, dtype=torch.float64), mirrored)[:, :2]) > 0
    rows, columns = torch.meshgrid(torch.arange(150.0), torch.arange(170.0), indexing="ij")
    for i, (x, y) in enumerate(points.tolist()):
        spot = torch.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 8)
        crop = face_crop(spot.expand(3, -1, -1), points)
        assert crop is not None and crop.shape == (3, FACE, FACE)
        row, column = divmod(int(crop[0].argmax()), FACE)
        assert abs(column - POINTS[i][0]) <= 1 and abs(row - POINTS[i][1]) <= 1
    assert face_crop(torch.zeros(3, 150, 170), points + 100) is None


@pytest.mark.parametrize("mode", ["crop", "resize", "pad"])
def test_places_are_found_again_however_the_picture_was_fitted(mode: str) -> None:
    pixels = torch.zeros(3, 96, 160, dtype=torch.uint8)
    pixels[:, 40:56, 70:90] = 255
    x, plan = image.fit(pixels, (64, 64), mode)
    shown, (left, top) = whole(Sample(Found(Path("a.png"), Path("a")), fit=plan, x=x), x[0])
    assert shown.shape[1] == 96 and (left, top) == ((32, 0) if mode == "crop" else (0, 0))
    assert shown[:, 44 - top : 52 - top, 75 - left : 85 - left].min() > 0.8
    assert shown[:, 20 - top : 30 - top, 70 - left : 90 - left].max() < 0.2


class Reader(nn.Module):
    """Reads "light" or "dark"."""

    def forward(self, crops: Tensor) -> list[str]:
        found: list[str] = []
        for i in range(crops.shape[0]):
            found.append("light" if bool(crops[i].mean() > 0.12) else "dark")
        return found


class Embedder(nn.Module):
    """Colours of a face in 4 x 4 places, about their mean."""

    def forward(self, crops: Tensor) -> Tensor:
        small = torch.nn.functional.adaptive_avg_pool2d(crops, [4, 4]).flatten(1)
        return small - small.mean(1, keepdim=True)


def test_eval_reads_words_and_knows_faces(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words, faces = [], []
    for i in range(3):
        pixels = np.zeros((64, 64, 3), np.uint8)
        pixels[:, :32] = 255
        pixels[40:60, 36:56, i] = 200
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        boxes = [((4, 4, 28, 28), "light", 0.025), ((36, 4, 60, 28), "dark", 0.035), ((4, 4, 28, 28), "dim", 0.5)]
        boxes += [((4, 4, 28, 28), "too small", 0.01), ((50, 4, 70, 28), "outside", 0.5)]
        words.append({"file_name": f"{i}.png", "annotations": [
            {"bbox": box, "rec": text, "ratio": ratio} for box, text, ratio in boxes]})  # fmt: skip
        kps = [(36 + 0.2 * x, 38 + 0.2 * y) for x, y in POINTS]
        faces.append({"image_name": f"set/{i}.png", "faces": [{"kps": kps, "ratio": 0.3}]})
    (tmp_path / "words.json").write_text(json.dumps(words))
    (tmp_path / "faces.json").write_text(json.dumps(faces))
    torch.jit.script(Reader()).save(tmp_path / "reader.pt")
    torch.jit.script(Embedder()).save(tmp_path / "embedder.pt")
    torch.manual_seed(0)
    zoo.save(tmp_path / "line.safetensors", codeczoo.build(one_d_piece_tree()))
    base: list[Any] = ["eval", *sorted(tmp_path.glob("*.png")), "--codec", tmp_path / "line.safetensors"]
    base += ["--positions", 16, "--against", "webp"]
    text = ["--text-model", tmp_path / "reader.pt", "--text-boxes", tmp_path / "words.json"]
    face = ["--face-model", tmp_path / "embedder.pt", "--face-points", tmp_path / "faces.json"]
    assert run(*base, *text, *face, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    counts = {"words_small": 3, "words_middle": 3, "words_large": 3, "faces_small": 0, "faces_middle": 0}
    assert told["crops"].items() >= (counts | {"faces_large": 3}).items()
    originals = told["crops"]["originals"]
    assert originals["t_acc_small"] == originals["t_acc_middle"] == 1 and originals["t_acc_large"] == 0
    assert originals["t_acc"] == pytest.approx(2 / 3) and 0.999 < originals["f_sim"] < 1  # the codec gets it smaller
    assert originals["t_ned_large"] == pytest.approx(text_ned("dim", "light"))
    codec, webp = told["rows"]
    assert webp["t_acc"] == originals["t_acc"] and webp["f_sim"] > 0.5 > abs(codec["f_sim"])
    assert codec["t_acc"] < webp["t_acc"]  # an untrained decoder gives one grey everywhere
    for arguments, message in (
        (text[:2], "belong together"),
        (["--text-model", tmp_path / "0.png", *text[2:]], "no TorchScript network"),
        (["--text-model", tmp_path / "embedder.pt", *text[2:]], "it gave no string for each crop"),
        (["--face-model", tmp_path / "reader.pt", *face[2:]], "it gave no vector for each crop"),
        ([*text[:3], tmp_path / "faces.json"], "no annotations of TokBench"),
    ):
        assert run(*base, *arguments) == 2 and message in one_line(capsys), arguments
    (tmp_path / "other.json").write_text(json.dumps([words[0] | {"file_name": "another.png"}]))
    assert run(*base, *text[:3], tmp_path / "other.json") == 2 and "annotate none" in one_line(capsys)
    (tmp_path / "twice.json").write_text(json.dumps([words[0], words[0]]))
    assert run(*base, *text[:3], tmp_path / "twice.json") == 2 and "2 pictures are called 0.png" in one_line(capsys)
