"""recipes/lm: a model is trained on an export by LitData, writes documents, and they are decoded."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT

import codeczoo
from codeczoo import export, zoo
from codeczoo.core.types import StreamSpec, TokenSpec
from codeczoo.export import dataset
from codeczoo.export.batches import Runner
from codeczoo.export.dataset import Document
from codeczoo.export.derive import derive
from codeczoo.export.patterns import Delay, Flat, Pattern, Vocabulary, grid_of, sizes_of

for name in ("lightning", "litdata", "transformers"):
    pytest.importorskip(name)


def tool(name: str, *arguments: object) -> str:
    """Runs a tool; gives what it printed."""
    command = [sys.executable, str(ROOT / "recipes" / "lm" / name), *map(str, arguments)]
    env = os.environ | {"PYTHONPATH": str(ROOT / "codecs"), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["flat", "delay"])
def test_a_model_learns_writes_and_is_decoded(tmp_path: Path, kind: str) -> None:
    from audio_cases import encodec, rvq

    torch.manual_seed(0)
    codec = codeczoo.build(encodec(causal=True) | {"quantizer": rvq(3)})
    zoo.save(tmp_path / "codec.safetensors", codec)
    pattern: Pattern = Flat(codec.spec) if kind == "flat" else Delay(codec.spec)
    runner = Runner(codec, str(tmp_path / "codec.safetensors"), zoo.weights_hash(codec))
    for part, seed in (("train", 0), ("val", 1)):
        documents = []
        for i in range(40):  # each codebook counts upwards: nothing for a table of single ids
            first = np.random.default_rng([seed, i]).integers(0, 24)
            codes = (torch.arange(30)[None, None] + int(first) + torch.tensor([0, 3, 5])[None, :, None]) % 24
            tokens = codeczoo.Tokens(codec.spec, (codes,), torch.tensor([[30 * 40]]), None, codec.spec.sample_rate)
            about = Document(f"{part}{i}", tuple(sizes_of(tokens)), tuple(grid_of(tokens)), None, f"{i:064x}")
            documents.append((about, pattern.ids(tokens)))
        with dataset.atomic_folder(tmp_path / part) as folder:
            derive(documents, dataset.header_of(runner, pattern, "litdata"), folder, "litdata", "uint16")
    small = ("--width", 64, "--depth", 2, "--heads", 2, "--context", 64, "--batch", 8, "--steps", 120, "--every", 40)
    tool("train.py", tmp_path / "train", tmp_path / "val", "-o", tmp_path / "lm", *small)
    report = json.loads((tmp_path / "lm" / "report.json").read_text())
    bits = report["bits_of_an_id"]
    assert bits["model"] < 0.3 * bits["unigram"] and bits["bigram"] < bits["unigram"] < bits["uniform"] + 1.5
    assert (tmp_path / "lm" / "curve.png").is_file()
    tool("sample.py", tmp_path / "lm", tmp_path / "val", "-o", tmp_path / "made", "--n", 3, "--positions", 12)
    made = export.read(tmp_path / "made")
    assert len(made) == 3 and made.tokens(0).codes.shape == (1, 3, 12)
    told = tool("squeeze.py", tmp_path / "lm", tmp_path / "val", "--n", 2).splitlines()
    by_model, static = [int(word) for word in told[-1].split() if word.isdecimal()][:2]
    assert len(told) == 3 and by_model < 0.5 * static
    command = [sys.executable, "-m", "codeczoo", "decode", str(tmp_path / "made"), "-o", str(tmp_path / "wav")]
    env = os.environ | {"PYTHONPATH": str(ROOT / "codecs")}
    assert subprocess.run(command, env=env).returncode == 0 and len(list((tmp_path / "wav").iterdir())) == 3


def test_witten_bell_gives_probabilities() -> None:
    sys.path.insert(0, str(ROOT / "recipes" / "lm"))
    try:
        import train
    finally:
        sys.path.pop(0)
    rng = np.random.default_rng(0)
    one = rng.integers(0, 7, (500, 1))
    spec = TokenSpec("image", "image", (StreamSpec((7,), ("position",), (1,), 1.0),))
    seven = Vocabulary.of(spec, 0, (), "own")
    total = 0.0
    for value in range(7):  # all that may follow a given id, in training or not, has probability 1 together
        two = np.array([[3], [value]])
        found = train.baselines((one[:60], 0 * one[:60]), (two, 0 * two), seven)
        total += 2 ** -found["bigram"]
    assert total == pytest.approx(1.0)
    many = Vocabulary.of(replace(spec, streams=(replace(spec.streams[0], vocab_sizes=(65536,)),)), 0, ("start",), "own")
    ids = np.tile([[65536], [5]], (200, 1))  # documents of a start and one code
    found = train.baselines((ids, ids * 0 - (ids > 65535)), (ids[:20], ids[:20] * 0 - (ids[:20] > 65535)), many)
    expected = (10 * -np.log2(200.5 / (200 + 65536 / 2)) + 9 * -np.log2(200.5 / 200.5)) / 19
    assert found["unigram"] == pytest.approx(expected), "what never occurred is no start"
