"""Exports written again, vocabularies of several codecs, text, cards, `inspect`, and ids of a language model."""

import json
import re
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from clip_codec import LEVELS, Means
from PIL import Image

import codeczoo
from codeczoo import export, zoo
from codeczoo.cli.main import main
from codeczoo.core.errors import CodeczooError, FormatError, InputError
from codeczoo.export.derive import Vary
from codeczoo.export.patterns import Delay, Flat, grid_of, sizes_of
from codeczoo.export.statistics import Statistics, entropy
from codeczoo.export.vocabulary import Block, Vocabularies, stacked
from codeczoo.io import audio as audio_io

WORDS = ["<unk>", "<eos>", "a", "photo", "of", "dog", "cat"]


class Place(NamedTuple):
    """Two codecs, pictures with side-cars, recordings, a tokenizer, and the pictures' export with the names of both."""

    root: Path
    image: Path
    audio: Path
    photos: Path
    sounds: Path
    tokenizer: Path
    store: Path


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    from audio_cases import encodec, rvq
    from conftest import one_d_piece_tree

    root = tmp_path_factory.mktemp("derived")
    photos, sounds = root / "photos", root / "sounds"
    photos.mkdir()
    sounds.mkdir()
    for i in range(12):
        noise = np.random.default_rng(i).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((40 + i, 36), Image.Resampling.BICUBIC).save(photos / f"p{i:02}.png")
        if i < 8:
            (photos / f"p{i:02}.txt").write_text("a photo of dog\n" if i % 2 else "a cat\n")
            (photos / f"p{i:02}.json").write_text(json.dumps({"keep": 1 + i, "boxes": [1, 2], "label": "dog"}))
    for i in range(3):
        torch.manual_seed(i)
        audio_io.write(sounds / f"s{i}.wav", 0.1 * torch.randn(1, 3000 + 500 * i), 16000)
    trees = {"image": one_d_piece_tree(), "audio": encodec(causal=True) | {"quantizer": rvq(4)}}
    for name, tree in trees.items():
        torch.manual_seed(0)
        zoo.save(root / f"{name}.safetensors", codeczoo.build(tree))
    image, audio = root / "image.safetensors", root / "audio.safetensors"
    assert run("export", photos, "-o", root / "store", "--codec", image, "--format", "parquet", "--sidecars") == 0
    return Place(root, image, audio, photos, sounds, tokenizer(root / "tokenizer"), root / "store")


def tokenizer(folder: Path) -> Path:
    """A tokenizer of a few words."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="<eos>")
    made.save_pretrained(str(folder))
    return folder


def codes(reader: export.Reader) -> list[Any]:
    return [[stream.tolist() for stream in reader.tokens(i).streams] for i in range(len(reader))]


# --- from one export to another --------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", export.FORMATS)
def test_every_format_is_derived_and_derived_from(place: Place, tmp_path: Path, format_: str) -> None:
    store = export.read(place.store)
    assert run("export", "--from", place.store, "-o", tmp_path / "a", "--format", format_) == 0
    assert run("export", "--from", tmp_path / "a", "-o", tmp_path / "b", "--format", "parquet") == 0
    for name in ("a", "b"):
        reader = export.read(tmp_path / name)
        assert len(reader) == len(store) == 12
        for i in range(12):
            assert np.array_equal(reader.ids(i), store.ids(i)) and reader.document(i) == store.document(i)
        assert reader.header["inputs_sha256"] == store.header["inputs_sha256"]
        assert (tmp_path / name / "README.md").read_text().startswith("---\npretty_name:")


def test_at_once_is_what_is_derived(place: Place, tmp_path: Path) -> None:
    arguments = ("--format", "npy", "--vocab-offset", 7, "--vary", "positions=3..9")
    assert run("export", place.photos, "-o", tmp_path / "a", "--codec", place.image, "--sidecars", *arguments) == 0
    assert run("export", "--from", place.store, "-o", tmp_path / "b", *arguments) == 0
    for name in ("tokens.bin", "offsets.npy", "documents.jsonl", "card.json", "README.md"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    lengths = [len(export.read(tmp_path / "a").ids(i)) - 2 for i in range(12)]
    assert min(lengths) >= 3 and max(lengths) <= 9 and len(set(lengths)) > 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_lengths_may_stand_in_a_field(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(place.photos, tmp_path / "photos")
    for path in (
        (tmp_path / "photos").glob("p08*"),
        (tmp_path / "photos").glob("p09*"),
        (tmp_path / "photos").glob("p1*"),
    ):
        for file in path:
            file.unlink()
    arguments = ("--codec", place.image, "--format", "parquet", "--sidecars", "--vary", "positions=keep")
    assert run("export", tmp_path / "photos", "-o", tmp_path / "out", *arguments) == 0
    reader, store = export.read(tmp_path / "out"), export.read(place.store)
    for i in range(8):
        assert reader.tokens(i).codes.shape[2] == 1 + i == reader.document(i).grid[0]
        assert torch.equal(reader.tokens(i).codes, store.tokens(i).codes[:, :, : 1 + i])
    capsys.readouterr()
    assert (
        run("export", "--from", place.store, "-o", tmp_path / "x", "--format", "npy", "--vary", "positions=keep") == 2
    )
    assert "p08: its 'keep' must be a whole number of at least 1, got None" in capsys.readouterr().err


def test_drawn_lengths_reach_both_ends(place: Place) -> None:
    store = export.read(place.store)
    tokens, drawn = store.tokens(0), []
    for i in range(300):
        document = replace(store.document(0), sha256=sha256(b"%d" % i).hexdigest())
        drawn.append(Vary("positions", 4, 6).of(tokens, document).codes.shape[2])
    assert all(80 < drawn.count(n) < 120 for n in (4, 5, 6)) and set(drawn) == {4, 5, 6}


def test_side_cars_are_what_is_said_of_a_file(place: Place) -> None:
    store = export.read(place.store)
    assert store.document(1).about == {"txt": "a photo of dog", "keep": 2, "label": "dog"}
    assert store.document(11).about is None


def test_another_pattern_has_the_same_tokens(place: Place, tmp_path: Path) -> None:
    arguments = ("--codec", place.audio, "--format", "parquet", "--codebooks", 3)
    assert run("export", place.sounds, "-o", tmp_path / "store", *arguments) == 0
    for number, (pattern, *options) in enumerate(
        [
            ("layer-major",),
            ("delay",),
            ("delay", "--delays", "0,1,1"),
            ("parallel", "--offsets", "own"),
            ("flat", "--offsets", "shared", "--codebooks", 3),
            ("coarse-first", "--vocab-offset", 70000),
        ]
    ):
        out = tmp_path / str(number)
        assert (
            run("export", "--from", tmp_path / "store", "-o", out, "--format", "npy", "--pattern", pattern, *options)
            == 0
        )
        assert codes(export.read(out)) == codes(export.read(tmp_path / "store"))
        again = tmp_path / f"{number} again"  # and nothing of it is forgotten
        assert run("export", "--from", out, "-o", again, "--format", "hf") == 0
        assert export.read(again).pattern.to_dict() == export.read(out).pattern.to_dict()
        assert codes(export.read(again)) == codes(export.read(out))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--codec", "x"), "--codec is about encoding"),
        (("some/path",), "PATH some/path is about encoding"),
        (("--delays", "1,2"), "--delays belongs to a --pattern"),
        (("--pattern", "flat", "--delays", "1,2"), "pattern flat has none"),
        (("--positions", 3, "--vary", "positions=1..2"), "one of --positions"),
        (("--positions", 17), r"--positions must be 1..16, got 17"),
        (("--vary", "positions=1..17"), "--positions must be 1..16, got 17"),
        (("--vary", "positions=5..2"), "1 <= A <= B"),
        (("--vary", "positions"), "e.g. positions=16..256"),
        (("--vary", "streams=1..2"), "prefixes of positions only"),
        (("--text", "txt"), "--text needs the ids of a --tokenizer"),
        (("--modality", "image"), "--modality is a part of a --vocabulary"),
        (("--tokenizer", "nowhere"), "nowhere: no such folder"),
        (("--tokenizer", "nowhere", "--vocab-offset", 3), "both say where the ids begin"),
        (("--vocabulary", "nowhere.json"), "nowhere.json: No such file"),
        (("--dtype", "uint16", "--vocab-offset", 65530), "uint16 holds ids below 65536"),
        (("--vocab-offset", -1), "at least 0, got -1"),
    ],
)
def test_what_does_not_go_together_is_told(
    place: Place, tmp_path: Path, arguments: tuple[object, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("export", "--from", place.store, "-o", tmp_path / "out", "--format", "npy", *arguments) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1 and not list(tmp_path.iterdir())


def test_export_wants_inputs_or_an_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("export", "-o", tmp_path / "out", "--format", "npy") == 2
    assert "PATH is needed, or --from EXPORT" in capsys.readouterr().err


# --- vocabularies and text -------------------------------------------------------------------------------------------


def test_blocks_lie_behind_one_another(place: Place, tmp_path: Path) -> None:
    image, audio = (codeczoo.load(path).spec for path in (place.image, place.audio))
    blocks = [
        Block("image", "i", "0", image, 0),
        Block("audio", "a", "1", audio, 99, "shared"),
        Block("own", "a", "1", audio, 0),
    ]
    words = stacked(1000, blocks)
    sizes = audio.streams[0].vocab_sizes
    assert [b.offset for b in words.blocks] == [1000, 1000 + 68, 1000 + 68 + max(sizes) + 4]
    assert words.size == 1000 + 68 + max(sizes) + 4 + sum(sizes) + 4
    for block in words.blocks:
        names = block.names()
        assert len(set(names)) == len(names) == block.vocabulary.size - block.offset
        for special, name in zip(block.vocabulary.special.values(), names[-4:], strict=True):
            assert names[special - block.offset] == name and block.name in name
    shared, own = words.block("audio"), words.block("own")
    film = Block("video", "v", "2", Means().spec, 7)  # two streams of three codebooks
    assert len(film.names()) == 6 * LEVELS + 4 and film.names()[4 * LEVELS + 9] == "<video_4_9>"
    assert film.vocabulary.stream.tolist() == [0, 0, 0, 1, 1, 1]
    assert shared.names()[5] == "<audio_5>" and own.names()[sizes[0] + 5] == "<own_1_5>"
    assert own.vocabulary.first[1] == own.offset + sizes[0]
    assert (
        Delay(audio, offsets="shared", vocab_offset=shared.offset).vocabulary.special["special"]
        == (
            shared.vocabulary.special["start"]  # the ids of rows are those of one row
        )
    )
    words.write(tmp_path / "vocabulary.json")
    assert Vocabularies.read(tmp_path / "vocabulary.json") == words
    with pytest.raises(InputError, match="did you mean image"):
        words.block("imge")
    for wrong in ("{", "[]", '{"version": 1}', '{"version": 1, "size": 2, "text": 1, "modalities": {}}'):
        (tmp_path / "vocabulary.json").write_text(wrong)
        with pytest.raises(FormatError):
            Vocabularies.read(tmp_path / "vocabulary.json")


def test_several_codecs_and_text_in_one_vocabulary(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    transformers = pytest.importorskip("transformers")
    parts = (f"image={place.image}", f"audio={place.audio}:shared")
    assert run("vocabulary", *parts, "--tokenizer", place.tokenizer, "-o", tmp_path / "words") == 0
    file = tmp_path / "words" / "vocabulary.json"
    image, audio = Vocabularies.read(file).blocks
    out, given = tmp_path / "out", ("--format", "npy", "--vocabulary", file)
    assert run("export", "--from", place.store, "-o", out, *given, "--text", "txt") == 0
    reader = export.read(out)
    assert reader.header["vocabulary"] == {"modality": "image", "text": 7, "size": Vocabularies.read(file).size}
    names = transformers.AutoTokenizer.from_pretrained(str(tmp_path / "words" / "tokenizer"))
    assert len(names) == Vocabularies.read(file).size
    codes = reader.tokens(1).codes[0, 0].tolist()
    whole = f"a photo of dog<image>{''.join(f'<image_{code}>' for code in codes)}</image>"
    assert reader.ids(1).tolist() == names(whole, add_special_tokens=False).input_ids
    assert [reader.ids(11)[0], reader.ids(11)[-1]] == [
        image.vocabulary.special["start"],
        image.vocabulary.special["end"],
    ]
    assert all(torch.equal(reader.tokens(i).codes, export.read(place.store).tokens(i).codes) for i in range(12))

    arguments = ("--codec", place.audio, *given, "--pattern", "delay")
    assert run("export", place.sounds, "-o", tmp_path / "sounds", *arguments) == 0
    sounds = export.read(tmp_path / "sounds")
    assert sounds.pattern.vocabulary.offset == audio.offset and sounds.header["rows"] == 4
    assert sounds.header["dtype"] == reader.header["dtype"] == "uint16"
    capsys.readouterr()
    for wrong, message in [
        (("--modality", "audio"), "'audio' of"),
        (("--modality", "imag"), "did you mean image?"),
        (("--offsets", "shared"), "has own ones"),
        (("--tokenizer", place.tokenizer), "both say where the ids begin"),
    ]:
        assert run("export", "--from", place.store, "-o", tmp_path / "x", *given, *wrong) == 2
        told = capsys.readouterr().err
        assert message in told and told.count("\n") == 1, told
    for wrong, message in [
        ((f"image={place.image}", f"image={place.audio}"), "two modalities are called 'image'"),
        (("image",), "NAME=CODEC is wanted"),
        ((f"im_age={place.image}",), "letters, digits and '-'"),
        (("image=nowhere",), "nowhere"),
    ]:
        assert run("vocabulary", *wrong, "-o", tmp_path / "no") == 2
        assert message in capsys.readouterr().err and not (tmp_path / "no").exists()
    assert run("vocabulary", *parts, "-o", tmp_path / "words") == 2
    assert "--overwrite" in capsys.readouterr().err


def test_text_after_the_media_ends(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    transformers = pytest.importorskip("transformers")
    given = ("--format", "litdata", "--tokenizer", place.tokenizer, "--text", "txt", "--text-place", "after")
    assert run("export", "--from", place.store, "-o", tmp_path / "out", *given) == 0
    reader = export.read(tmp_path / "out")
    assert reader.ids(0)[-3:].tolist() == [WORDS.index("a"), WORDS.index("cat"), WORDS.index("<eos>")]
    assert reader.ids(0)[0] == reader.pattern.vocabulary.special["start"] and reader.pattern.vocabulary.offset == 7
    assert torch.equal(reader.tokens(0).codes, export.read(place.store).tokens(0).codes)
    saved = transformers.AutoTokenizer.from_pretrained(str(tmp_path / "out" / "tokenizer"))
    assert saved.decode(reader.ids(0)).startswith("<image>") and saved.decode(reader.ids(0)).endswith("a cat <eos>")
    assert run("export", "--from", tmp_path / "out", "-o", tmp_path / "copy", "--format", "npy") == 0  # as it is
    assert np.array_equal(export.read(tmp_path / "copy").ids(0), reader.ids(0))
    assert (tmp_path / "copy" / "tokenizer").is_dir() and torch.equal(
        export.read(tmp_path / "copy").tokens(0).codes, reader.tokens(0).codes
    )
    capsys.readouterr()
    for wrong, message in [
        (("--from", tmp_path / "out", "--format", "npy", "--positions", 3), "its ids have text among them"),
        (("--from", place.store, *given[:4], "--text", "nothing"), "no document says a 'nothing'"),
        (("--from", place.store, *given, "--pattern", "delay"), "text needs a pattern of one row"),
    ]:
        assert run("export", *wrong, "-o", tmp_path / "x") == 2
        assert message in capsys.readouterr().err and not (tmp_path / "x").exists()


def test_types_hold_the_whole_vocabulary(place: Place, tmp_path: Path) -> None:
    """Exports of all its parts are mixed, so none may have ids of a smaller type."""
    parts = (f"image={place.image}", f"audio={place.audio}")
    assert run("vocabulary", *parts, "--vocab-offset", 65460, "-o", tmp_path) == 0
    given = ("--format", "npy", "--vocabulary", tmp_path / "vocabulary.json")
    assert run("export", "--from", place.store, "-o", tmp_path / "out", *given) == 0
    header = export.read(tmp_path / "out").header
    assert header["vocab_size"] < 2**16 < header["vocabulary"]["size"] and header["dtype"] == "uint32"


# --- counts, cards, pictures of it -----------------------------------------------------------------------------------


def test_counts_are_right(place: Place) -> None:
    reader = export.read(place.store)
    found = Statistics.of(reader)
    every = torch.cat([reader.tokens(i).codes.flatten() for i in range(len(reader))])
    assert np.array_equal(found.counts[0], torch.bincount(every, minlength=64).numpy())
    assert sum(map(sum, found.counts)) == len(every) == 12 * 16
    assert found.lengths.tolist() == [18] * 12 and found.amount == 12
    assert entropy(np.array([1, 1, 0, 2])) == 1.5 and entropy(np.array([0, 0])) == entropy(np.array([0, 5])) == 0
    card = json.loads((place.store / "card.json").read_text())
    assert card["bits_per_picture"] == 96 and card["codebooks"][0]["used"] == len(set(every.tolist()))
    assert card["weights_hash"] == reader.header["weights_hash"] and card["documents"] == 12


def test_counts_of_recordings_know_their_codebooks(place: Place, tmp_path: Path) -> None:
    spec = codeczoo.load(place.audio).spec
    expected = None
    for pattern, offsets in [("flat", "own"), ("flat", "shared"), ("layer-major", "shared"), ("delay", "own")]:
        out = tmp_path / f"{pattern} {offsets}"
        arguments = ("--codec", place.audio, "--format", "npy", "--pattern", pattern, "--offsets", offsets)
        assert run("export", place.sounds, "-o", out, *arguments) == 0
        reader = export.read(out)
        found = Statistics.of(reader)
        counts = [count.tolist() for count in found.counts]
        expected = expected or counts
        assert counts == expected and found.amount == pytest.approx(3 * 3500 / 16000, abs=2 / spec.streams[0].rate)
    assert len({sum(count) for count in counts}) == 1 and found.to_dict()["codes"] == 4 * sum(counts[0])


@pytest.mark.parametrize("format_", ["parquet", "webdataset"])
def test_the_hub_s_loader_reads_the_folder_by_its_card(place: Place, tmp_path: Path, format_: str) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed: pip install datasets")
    assert run("export", "--from", place.store, "-o", tmp_path / "out", "--format", format_) == 0
    rows = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    found = rows[3]["tokens.npy" if format_ == "webdataset" else "tokens"]
    assert len(rows) == 12 and list(found) == export.read(place.store).ids(3).tolist()


def test_inspect_shows_counts_and_samples(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run("inspect", place.store) == 0
    told = capsys.readouterr().out
    assert re.search(r"documents +12\n", told) and "codebook" in told and "█" in told
    assert run("inspect", place.store, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["codes"] == 192 and sum(facts["histograms"][0]) == 192
    assert run("inspect", place.store, "-o", tmp_path / "look", "--samples", 4) == 0
    assert sorted(p.name for p in (tmp_path / "look" / "media").iterdir()) == [f"p{i:02}.png" for i in (0, 4, 7, 11)]
    assert Image.open(tmp_path / "look" / "media" / "p04.png").size == (44, 36)
    assert Image.open(tmp_path / "look" / "samples.png").size[0] > 4 * 40
    assert Image.open(tmp_path / "look" / "histogram.png").size[0] > 512
    assert run("encode", place.photos / "p04.png", "-o", tmp_path / "cz", "--codec", place.image) == 0
    assert run("decode", tmp_path / "cz", "-o", tmp_path / "png") == 0
    assert (tmp_path / "png" / "p04.png").read_bytes() == (tmp_path / "look" / "media" / "p04.png").read_bytes()
    capsys.readouterr()
    assert run("inspect", tmp_path) == 2 and "no export here" in capsys.readouterr().err
    assert run("inspect", place.store, "-o", tmp_path / "x", "--codec", place.audio) == 2
    assert "was made with" in capsys.readouterr().err


def test_inspect_of_recordings_gives_sound(place: Place, tmp_path: Path) -> None:
    arguments = ("--codec", place.audio, "--format", "webdataset", "--pattern", "delay")
    assert run("export", place.sounds, "-o", tmp_path / "out", *arguments) == 0
    assert run("inspect", tmp_path / "out", "-o", tmp_path / "look") == 0
    assert sorted(p.name for p in (tmp_path / "look" / "media").iterdir()) == ["s0.wav", "s1.wav", "s2.wav"]
    assert audio_io.info(tmp_path / "look" / "media" / "s1.wav").frames == 3500


@pytest.mark.parametrize("format_", export.FORMATS)
def test_decode_takes_exports(place: Place, tmp_path: Path, format_: str) -> None:
    assert run("export", "--from", place.store, "-o", tmp_path / "out", "--format", format_) == 0
    assert run("decode", tmp_path / "out", "-o", tmp_path / "png", "--positions", 5) == 0
    assert len(list((tmp_path / "png").iterdir())) == 12
    assert (
        run("export", place.photos / "p03.png", "-o", tmp_path / "one", "--codec", place.image, "--format", "npy") == 0
    )
    assert run("decode", tmp_path / "one", "-o", tmp_path / "one_png", "--positions", 5) == 0
    assert (tmp_path / "one_png" / "p03.png").read_bytes() == (tmp_path / "png" / "p03.png").read_bytes()
    assert run("decode", tmp_path / "out", tmp_path / "one", "-o", tmp_path / "both", "--positions", 5) == 0
    assert len([path for path in (tmp_path / "both").rglob("*") if path.is_file()]) == 13, "neither hides the other"


def test_nothing_is_written_beside_the_output_folder(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("export", "--from", place.store, "-o", tmp_path / "out", "--format", "npy") == 0
    lines = tmp_path / "out" / "documents.jsonl"
    for name in ("../evil", "/tmp/evil", "."):
        text = lines.read_text()
        lines.write_text(text.replace('"p03"', json.dumps(name)))
        capsys.readouterr()
        assert run("decode", tmp_path / "out", "-o", tmp_path / "png") == 2
        assert "is no relative path" in capsys.readouterr().err
        lines.write_text(text)


# --- ids of a language model -----------------------------------------------------------------------------------------


def test_generated_ids_are_an_export(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    like = export.read(place.store)
    special = like.pattern.vocabulary.special
    ids = [[special["start"], *range(i, i + 5), special["end"]] for i in range(3)]
    header = export.generated(tmp_path / "made", like, ids, names=["one"])
    assert header["documents"] == 3 and export.generated is export.generated
    reader = export.read(tmp_path / "made")
    assert reader.tokens(2).codes.tolist() == [[[2, 3, 4, 5, 6]]] and reader.document(0).id == "one"
    assert run("decode", tmp_path / "made", "-o", tmp_path / "png") == 0
    assert sorted(p.name for p in (tmp_path / "png").iterdir()) == ["one.png", "sample_00001.png", "sample_00002.png"]
    assert Image.open(tmp_path / "png" / "one.png").size == (32, 32)
    assert run("inspect", tmp_path / "made") == 0
    with pytest.raises(FormatError, match="document sample_00001: place 3"):
        export.generated(tmp_path / "bad", like, [ids[0], [*ids[1][:3], special["pad"], *ids[1][4:]]])
    assert not (tmp_path / "bad").exists()


def test_generated_sound_needs_no_size(place: Place, tmp_path: Path) -> None:
    spec = codeczoo.load(place.audio).spec
    arguments = ("--codec", place.audio, "--format", "npy", "--pattern", "delay")
    assert run("export", place.sounds, "-o", tmp_path / "out", *arguments) == 0
    like = export.read(tmp_path / "out")
    export.generated(tmp_path / "made", like, [like.ids(0)])
    tokens = export.read(tmp_path / "made").tokens(0)
    assert torch.equal(tokens.codes, like.tokens(0).codes)
    assert sizes_of(tokens) == [round(grid_of(tokens)[0] * (spec.sample_rate or 0) / spec.streams[0].rate)]
    assert run("decode", tmp_path / "made", "-o", tmp_path / "wav") == 0
    assert audio_io.info(tmp_path / "wav" / "sample_00000.wav").frames == sizes_of(tokens)[0]


def test_flat_is_unchanged_by_what_is_new(place: Place) -> None:
    """Headers of older exports have no `offsets`."""
    store = export.read(place.store)
    tree = {key: value for key, value in store.header["pattern"].items() if key in ("_target_", "vocab_offset")}
    old = codeczoo.build(tree | {"spec": store.spec})
    assert isinstance(old, Flat) and old.to_dict() == store.pattern.to_dict()
    with pytest.raises(CodeczooError):
        codeczoo.build(tree | {"spec": store.spec, "offsets": "both"})


def test_another_pattern_has_the_codebooks_that_are_there(place: Place, tmp_path: Path) -> None:
    """An export of the first two codebooks, encoded so or shortened later, has no empty rows."""
    given = ("--format", "parquet")
    assert run("export", place.sounds, "-o", tmp_path / "two", *given, "--codec", place.audio, "--codebooks", 2) == 0
    assert run("export", place.sounds, "-o", tmp_path / "all", *given, "--codec", place.audio) == 0
    assert run("export", "--from", tmp_path / "all", "-o", tmp_path / "short", *given, "--codebooks", 2) == 0
    for name in ("two", "short"):
        out = tmp_path / f"{name}_delay"
        assert run("export", "--from", tmp_path / name, "-o", out, *given, "--pattern", "delay") == 0
        reader = export.read(out)
        assert reader.header["rows"] == 2 and reader.header["prefix"]["codebooks"] == 2
        assert torch.equal(reader.tokens(0).codes, export.read(tmp_path / name).tokens(0).codes)
        assert run("export", "--from", tmp_path / name, "-o", f"{out}_shared", *given, "--offsets", "shared") == 0
        assert codes(export.read(f"{out}_shared")) == codes(export.read(tmp_path / name))
    assert run("export", "--from", tmp_path / "short", "-o", tmp_path / "more", *given, "--codebooks", 3) == 0
    assert export.read(tmp_path / "more").header["prefix"]["codebooks"] == 2, "there are no more"
    assert run("export", "--from", tmp_path / "all", "-o", tmp_path / "wide", *given, "--pattern", "delay") == 0
    assert export.read(tmp_path / "wide").header["rows"] == 4


def test_factors_of_codes_stay_until_others_are_given(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ids of factors, at once and derived, in patterns of one row and of several, in a vocabulary, and back."""
    new = ("--codec", place.image, "--format", "parquet", "--sidecars")
    assert run("export", place.photos, "-o", tmp_path / "new", *new, "--factors", "4,2,8") == 0
    reader = export.read(tmp_path / "new")
    assert codes(reader) == codes(export.read(place.store))
    assert [book["size"] for book in reader.header["codebooks"]] == [4, 2, 8] and reader.header["vocab_size"] == 14 + 4
    file = tmp_path / "words" / "vocabulary.json"
    assert run("vocabulary", f"image={place.image}:4,2,8:shared", f"own={place.image}", "-o", tmp_path / "words") == 0
    assert [b.offset for b in Vocabularies.read(file).blocks] == [0, 8 + 4]
    for number, (options, factors, rows) in enumerate(
        [
            ((), [4, 2, 8], None),
            (("--pattern", "delay"), [4, 2, 8], 3),
            (("--pattern", "delay", "--delays", "0,0,5"), [4, 2, 8], 3),
            (("--offsets", "shared", "--vocab-offset", 9), [4, 2, 8], None),
            (("--tokenizer", place.tokenizer, "--text", "txt"), [4, 2, 8], None),
            (("--pattern", "parallel", "--factors", "8,8"), [8, 8], 2),
            (("--pattern", "flat", "--factors", "none"), [], None),
            (("--vocabulary", file), [4, 2, 8], None),
            (("--vocabulary", file, "--modality", "own", "--pattern", "flat"), [], None),
        ]
    ):
        out = tmp_path / str(number)
        assert run("export", "--from", tmp_path / "new", "-o", out, "--format", "npy", *options) == 0
        derived = export.read(out)
        assert getattr(derived.pattern, "factors", []) == factors and derived.pattern.rows == rows
        assert codes(derived) == codes(reader)
    assert run("decode", tmp_path / "1", "-o", tmp_path / "pictures") == 0
    capsys.readouterr()
    for wrong, message in [
        (("--factors", "none"), "the export has factors 4,2,8; for none say the --pattern too"),
        (("--factors", "4,4", "--pattern", "flat"), "factors [4, 4] make 16 codes, a codebook has 64"),
        (("--vocabulary", file, "--factors", "8,8"), "has 4,2,8"),
        (("--vocabulary", file, "--modality", "own"), "for none say the --pattern too"),
        (("--tokenizer", place.tokenizer, "--factors", "4,4", "--pattern", "flat"), "a codebook has 64"),
    ]:
        assert run("export", "--from", tmp_path / "new", "-o", tmp_path / "x", "--format", "npy", *wrong) == 2
        told = capsys.readouterr().err
        assert message in told and told.count("\n") == 1, told
    for wrong, message in [
        ((f"image={place.image}:4,4",), "a codebook has 64"),
        ((f"image={place.image}:none",), "':none' is neither :shared nor factors like :8,8,8"),
        ((f"image={place.image}:8,8,",), "':8,8,' is neither"),
    ]:
        assert run("vocabulary", *wrong, "-o", tmp_path / "no") == 2
        assert message in capsys.readouterr().err and not (tmp_path / "no").exists()
    assert run("vocabulary", f"image={place.image}:shared:4,2,8", "-o", tmp_path / "turned") == 0
    assert Vocabularies.read(tmp_path / "turned" / "vocabulary.json").size == 8 + 4
    card = (tmp_path / "new" / "README.md").read_text()
    assert "| pattern | Flat (vocab_offset 0, offsets own) of factors 4, 2, 8 |" in card


def test_factored_codebooks_that_are_there(place: Place, tmp_path: Path) -> None:
    """Two of four codebooks of 24, as digits of 4 and 6."""
    given = ("--format", "parquet", "--factors", "4,6")
    assert run("export", place.sounds, "-o", tmp_path / "two", *given, "--codec", place.audio, "--codebooks", 2) == 0
    for number, options in enumerate([("--pattern", "delay"), ("--offsets", "shared")]):
        out = tmp_path / str(number)
        assert run("export", "--from", tmp_path / "two", "-o", out, "--format", "npy", *options) == 0
        assert codes(export.read(out)) == codes(export.read(tmp_path / "two"))
    assert export.read(tmp_path / "0").header["rows"] == 4
