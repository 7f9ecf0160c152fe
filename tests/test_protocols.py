"""Protocols of eval and report: labels that can still be read, sizes beside quality, language models."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from conftest import one_d_piece_tree
from PIL import Image
from test_cli import one_line, run
from test_report import Page

import codeczoo
from codeczoo import zoo
from codeczoo.cli.language import lines
from codeczoo.core.types import StreamSpec, Tokens, TokenSpec
from codeczoo.export.probing import _histograms
from codeczoo.export.sizes import sizes

COLOURS = {"red": (220, 40, 30), "green": (30, 200, 60), "blue": (20, 60, 230)}


class Place(NamedTuple):
    """Coloured pictures with manifests, and a codec."""

    root: Path
    codec: Path


def manifest(folder: Path, name: str, labels: list[str], first: int) -> list[dict[str, Any]]:
    """Noisy pictures of the colours that the labels say, listed in NAME.jsonl."""
    rows = []
    for i, label in enumerate(labels, first):
        noise = np.random.default_rng(i).integers(-20, 20, (32, 32, 3))
        pixels = (np.array(COLOURS.get(label, (128, 128, 128))) + noise).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        rows.append({"path": f"{i}.png", "label": label, "lot": "ab"[np.random.default_rng(i).integers(2)]})
    write(folder / f"{name}.jsonl", rows)
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("protocols")
    manifest(root, "train", ["red", "green", "blue"] * 8, 0)
    manifest(root, "test", ["red", "green", "blue"] * 4 + ["violet"], 100)
    torch.manual_seed(0)
    codec = codeczoo.build(one_d_piece_tree())
    with torch.no_grad():
        for matrix in (p for p in codec.encoder.parameters() if p.ndim > 1):
            matrix *= 50  # else it gives the same codes for all pictures before it is trained
    zoo.save(root / "line.safetensors", codec)
    return Place(root, root / "line.safetensors")


def evaluate(place: Place, capsys: pytest.CaptureFixture[str], *arguments: Any) -> dict[str, Any]:
    learnt = ("--probe-train", place.root / "train.jsonl", "--json")
    wish = ("--codec", place.codec, "--positions", "1,16", "--against", "jpeg")
    assert run("eval", place.root / "test.jsonl", *wish, *arguments, *learnt) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_colours_are_read_off_originals_jpegs_and_codes(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    told = evaluate(place, capsys, "--probe", "label")
    about = {"classes": 3, "train": 24, "test": 12, "unknown": 1, "chance": pytest.approx(1 / 3), "originals": 1}
    assert told["probe"] == about and told["pictures"] == 13
    codec, jpeg = told["rows"][2:]
    assert codec["system"] == "line" and jpeg["probe"] == 1 and "probe_codes" not in jpeg
    assert codec["probe_codes"] >= 0.9 and codec["probe_vectors"] >= 0.9  # an untrained encoder, but not blind
    assert codec["probe"] < 0.7  # an untrained decoder makes noise of them: what learnt on originals reads nothing


def test_labels_drawn_by_lot_are_not_read(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    told = evaluate(place, capsys, "--probe", "lot")
    assert told["probe"]["classes"] == 2 and told["probe"]["originals"] < 0.9
    assert all(row["probe"] < 0.9 for row in told["rows"])


def test_requests_for_probes_that_cannot_be_get_one_line(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, test = place.root / "train.jsonl", place.root / "test.jsonl"
    rows = [json.loads(line) for line in train.read_text().splitlines()]
    absolute = [row | {"path": str(place.root / row["path"])} for row in rows]
    write(tmp_path / "one.jsonl", [row for row in absolute if row["label"] == "red"])
    write(tmp_path / "none.jsonl", [{"name": "a"}])
    for arguments, message in (
        ((test, "--probe", "label"), "give both"),
        ((test, "--probe-train", train), "give both"),
        ((test, "--probe", "size", "--probe-train", train), "no file has it; the manifests have label, lot"),
        ((place.root / "100.png", "--probe", "label", "--probe-train", train), "no manifest"),
        ((train, "--probe", "label", "--probe-train", train), "is among the inputs too"),
        ((test, "--probe", "label", "--probe-train", tmp_path / "one.jsonl"), "fewer than two classes"),
        ((tmp_path / "none.jsonl", "--probe", "label", "--probe-train", train), "no column"),
    ):
        assert run("eval", *arguments, "--codec", place.codec) == 2
        assert message in one_line(capsys), arguments


def test_the_report_has_tables_of_all_of_it(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bits = {"uniform": 96.0, "unigram": 80.0, "bigram": 60.0, "model": 48.0}
    each = {name: value / 16 for name, value in bits.items()}
    digest = zoo.weights_hash(codeczoo.load(place.codec))
    facts = {"bits_of_an_id": each, "bits_per_picture": bits, "parameters": 2_500_000, "codec": "line"}
    (tmp_path / "lm.json").write_text(json.dumps(facts | {"weights_hash": digest}))
    (tmp_path / "other.json").write_text(json.dumps(facts | {"weights_hash": "0" * 16}))
    (tmp_path / "wrong.json").write_text("[]")
    wish: list[Any] = ["report", place.root / "test.jsonl", "--codec", place.codec, "--against", "jpeg"]
    wish += ["--rates", "2,8,999", "--probe", "label", "--probe-train", place.root / "train.jsonl"]
    wish += ["-o", tmp_path / "out.html", "--lm"]
    for path, message in (("other.json", "with other weights than line"), ("wrong.json", "no report of recipes/lm")):
        assert run(*wish, tmp_path / path) == 2 and message in one_line(capsys)
    assert run(*wish, tmp_path / "lm.json", "--lm", f"line={tmp_path / 'other.json'}") == 0
    codec = json.loads((tmp_path / "out.json").read_text())["codecs"][0]
    assert [line["rate"] for line in codec["sizes"]] == ["2 positions", "8 positions"]
    assert [line["token_bytes"] for line in codec["sizes"]] == [2 * 6 / 8, 8 * 6 / 8]  # 64 entries are 6 bits
    assert codec["sizes"][1]["psnr"]["jpeg"] == codec["rows"][3]["psnr"]
    assert codec["probe"]["originals"] == 1 and len(codec["lm"]) == 2 and codec["rows"][3]["probe"] == 1
    page = Page((tmp_path / "out.html").read_text(encoding="utf-8"))
    wanted = ["Sizes and quality", "PSNR, dB, jpeg", "Labels that can still be read", "jpeg beside line"]
    wanted += ["codebook vectors", "100.0% of the originals right", "Language models", "2.50 M", "bits of a picture"]
    assert not [words for words in wanted if words not in page.text]


# --- its parts -------------------------------------------------------------------------------------------------------


def test_sizes_are_a_line_for_each_rate() -> None:
    rows = [
        {"system": "a", "rate": "1 codebooks", "kbps": 0.5, "payload_bytes": 30.0, "mel": 2.0, "pesq": 1.5},
        {"system": "opus", "rate": "1 codebooks", "payload_bytes": 29.0, "mel": 3.0},
        {"system": "a", "rate": "2 codebooks", "kbps": 1.0, "payload_bytes": 60.0, "mel": 1.0},
        {"system": "opus", "rate": "2 codebooks", "payload_bytes": 59.0, "mel": 2.5},
    ]
    assert sizes(rows, "audio") == [
        {"rate": "1 codebooks", "payload_bytes": 30.0, "mel": {"a": 2.0, "opus": 3.0}, "pesq": {"a": 1.5}},
        {"rate": "2 codebooks", "payload_bytes": 60.0, "mel": {"a": 1.0, "opus": 2.5}},
    ]


def test_histograms_count_known_entries_and_the_rest_as_one() -> None:
    spec = TokenSpec("audio", "second", (StreamSpec((9, 9), ("time",), (None,), 1.0),), ("codebooks",), None, 8, 1)

    def tokens(*books: list[int]) -> Tokens:
        return Tokens(spec, (torch.tensor(books)[None],), torch.tensor([[len(books[0])]]))

    train, test = _histograms([tokens([5, 5, 2, 5], [1, 1, 1, 1])], [tokens([2, 8, 5, 0], [1, 7, 7, 7])])
    wanted = torch.tensor([[0.25, 0.75, 0, 1, 0], [0.25, 0.25, 0.5, 0.25, 0.75]])  # 2, 5, others; 1, others
    torch.testing.assert_close(torch.cat([train, test]).square(), wanted)


def test_language_models_beside_what_needs_none() -> None:
    bits = {"uniform": 200.0, "unigram": 180.0, "model": 100.0}
    found = lines({"bits_of_an_id": {"uniform": 10, "unigram": 9, "model": 5}, "bits_per_second": bits})
    assert [line["known"] for line in found] == ["all codes alike", "how often each occurs", "model"]
    assert found[2]["bits of a second"] == "100" and found[2]["of all alike"] == "50.0%"
