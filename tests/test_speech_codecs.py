"""WavTokenizer, SpeechTokenizer, DM-Codec at small width: streams, padded batches, prefixes, features, files."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import codeczoo
from codeczoo import zoo
from codeczoo.audio import dm_codec, speechtokenizer, wavtokenizer
from codeczoo.audio.pieces import Windows, decode_pieces, encode_pieces
from codeczoo.audio.waveform import WaveformCodec
from codeczoo.core.errors import ConfigError, InputError
from codeczoo.quantizers.tally import update

WAVTOKENIZER = {
    "feature_extractor": {"dowmsamples": [3, 2], "vq_bins": 64},
    "backbone": {
        "input_channels": 12, "dim": 64, "intermediate_dim": 96, "num_layers": 2, "adanorm_num_embeddings": 4,
    },
    "head": {"n_fft": 24, "hop_length": 6, "padding": "same"},
    "parity": {"hard_coded_in_original_EncodecFeatures": {"n_filters": 4}},
}  # fmt: skip
SPEECHTOKENIZER = {
    "n_filters": 4, "strides": [3, 2], "dimension": 12, "semantic_dimension": 10, "bidirectional": True,
    "dilation_base": 2, "residual_kernel_size": 3, "n_residual_layers": 1, "lstm_layers": 2, "activation": "ELU",
    "codebook_size": 16, "n_q": 3, "sample_rate": 16000,
}  # fmt: skip
TREES = {
    "wavtokenizer": wavtokenizer.original_tree(WAVTOKENIZER),
    "speechtokenizer": speechtokenizer.original_tree(SPEECHTOKENIZER),
    "snake": speechtokenizer.original_tree(SPEECHTOKENIZER | {"activation": "Snake", "n_residual_layers": 2}),
    "dm_codec": dm_codec.original_tree(SPEECHTOKENIZER),
}


def made(name: str) -> Any:
    """A codec with random weights whose entries lie among its latents."""
    torch.manual_seed(0)
    codec = codeczoo.build(TREES[name]).eval()
    with torch.no_grad():
        z = codec.encoder(noise(1, 1200))[0].T  # (200, D)
        for layer in getattr(codec.quantizer, "inner", [codec.quantizer]):
            layer.codebook.copy_(z[torch.randperm(len(z))[: len(layer.codebook)]])
            z = z - layer.codebook[layer.choose(z)[:, 0]]
    return codec


def noise(batch: int, samples: int) -> Tensor:
    """Noise whose loudness changes, so that codes do."""
    x = torch.randn(batch, 1, samples) * torch.linspace(0, 6, samples).sin()
    return 0.3 * x.clamp(-3, 3)


@pytest.mark.parametrize("piece", [1, 5, 6, 17, 64, 500])
def test_wavtokenizer_encodes_piece_by_piece(piece: int) -> None:
    codec = made("wavtokenizer")
    for samples in (1, 6, 7, 100):
        x = noise(2, samples)
        stream, parts = codec.stream(), []
        for i in range(0, samples, piece):
            parts.append(stream.encode(x[:, :, i : i + piece]))
        parts.append(stream.encode(x[:, :, :0], last=True))
        codes = codec.encode(x).codes
        assert codes.shape[2] == -(-samples // 6)
        assert torch.equal(torch.cat(parts, 2), codes)
    assert len(codes.unique()) > 5


def test_wavtokenizer_takes_long_files() -> None:
    codec, x = made("wavtokenizer"), noise(1, 900)
    with torch.no_grad():
        tokens = encode_pieces(codec, x.split(37, 2))
        assert torch.equal(tokens.codes, codec.encode(x).codes)
        whole = codec.decode(tokens)
        pieces = list(decode_pieces(codec, tokens, Windows(100 / 4000, 40 / 4000)))
        all_at_once = torch.cat(list(decode_pieces(codec, tokens, Windows(1.0))), 2)
    assert len(pieces) == 2 and torch.cat(pieces, 2).shape == whole.shape
    torch.testing.assert_close(all_at_once, whole)


def test_wavtokenizer_reports_how_far_it_looks_ahead() -> None:
    codec, x = made("wavtokenizer"), noise(1, 240)
    encoder, latency = codec.encoder, codec.stream().encode_latency
    assert 6 < latency < 60
    with torch.no_grad():
        z = encoder(x)
        for frame in range(10, 20):
            seen = encoder.needs(frame + 1)
            assert seen <= 6 * frame + latency
            changed = x.clone()
            changed[:, :, seen:] += 1
            torch.testing.assert_close(encoder(changed)[:, :, : frame + 1], z[:, :, : frame + 1])
            changed = x.clone()
            changed[:, :, seen - 1] += 1
            assert not torch.equal(encoder(changed)[:, :, frame], z[:, :, frame])
            assert encoder.step(x[:, :, :seen], encoder.begin()).shape[2] == frame + 1


def test_halves_that_see_all_of_time_say_so() -> None:
    stream = made("wavtokenizer").stream()
    with pytest.raises(InputError, match="over all of time"):
        stream.decode(torch.zeros(1, 1, 3, dtype=torch.int64))
    stream = made("speechtokenizer").stream()
    with pytest.raises(InputError, match="LSTM also runs backwards"):
        stream.encode(noise(1, 60))


@pytest.mark.parametrize("piece", [1, 3, 50])
def test_speechtokenizer_decodes_piece_by_piece(piece: int) -> None:
    codec = made("speechtokenizer")
    codes = torch.randint(0, 16, (2, 3, 23))
    stream, parts = codec.stream(), []
    for i in range(0, 23, piece):
        parts.append(stream.decode(codes[:, :, i : i + piece]))
    parts.append(stream.decode(codes[:, :, :0], last=True))
    with torch.no_grad():
        expected = codec.render(codec.quantizer.decode(codes)).clamp(-1, 1)
    torch.testing.assert_close(torch.cat(parts, 2), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", TREES)
@torch.no_grad()
def test_padded_batch_gives_what_single_clips_give(name: str) -> None:
    codec, lengths = made(name), torch.tensor([137, 6, 60, 1, 240])
    x = noise(5, 240)  # what lies behind the ends is not 0
    together = codec.encode(x, lengths=lengths)
    x_hat = codec.decode(together)
    frames = together.stream_lengths().tolist()
    assert frames == [23, 1, 10, 1, 40]
    for i, (samples, n) in enumerate(zip(lengths.tolist(), frames, strict=True)):
        alone = codec.encode(x[i : i + 1, :, :samples])
        assert torch.equal(together.codes[i, :, :n], alone.codes[0])
        assert not together.codes[i, :, n:].any() and not x_hat[i, :, samples:].any()
        torch.testing.assert_close(x_hat[i : i + 1, :, :samples], codec.decode(alone), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["speechtokenizer", "dm_codec"])
@torch.no_grad()
def test_codebook_prefixes(name: str) -> None:
    codec, x = made(name), noise(2, 131)
    tokens = codec.encode(x)
    outputs = []
    for k in (1, 2, 3):
        part = codec.encode(x, n_codebooks=k)
        assert torch.equal(part.codes, tokens.codes[:, :k])
        outputs.append(codec.decode(part))
        assert torch.equal(outputs[-1], codec.decode(tokens.prefix(codebooks=k)))
    assert not torch.equal(outputs[0], outputs[2])
    torch.testing.assert_close(codec(x).x_hat.clamp(-1, 1), outputs[2], atol=1e-6, rtol=0)


def test_one_codebook_has_no_prefix() -> None:
    codec, x = made("wavtokenizer"), noise(1, 60)
    assert torch.equal(codec.encode(x, n_codebooks=1).codes, codec.encode(x).codes)
    with pytest.raises(InputError, match="n_codebooks must be 1, got 2"):
        codec.encode(x, n_codebooks=2)


@pytest.mark.parametrize("name", ["speechtokenizer", "dm_codec"])
def test_features_are_the_first_codebooks(name: str) -> None:
    codec, x = made(name), noise(2, 120)
    found = codec(x)
    assert found.features.shape == (2, 10, 20)
    first = codec.quantizer.decode(found.tokens.codes[:, :1])
    torch.testing.assert_close(found.features, codec.transform(first.mT).mT)
    with torch.no_grad():
        codec.quantizer.inner[1].codebook.add_(1)
    assert torch.equal(codec(x).features, found.features)
    codec.train()(x).features.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in codec.encoder.parameters())
    assert codec.transform.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in codec.decoder.parameters())


@pytest.mark.parametrize("name", ["wavtokenizer", "speechtokenizer"])
def test_training_lowers_the_error(name: str) -> None:
    codec, x = made(name).train(), (torch.arange(240) * torch.tensor([0.05, 0.1, 0.2, 0.3])[:, None, None]).sin()
    optimizer = torch.optim.Adam(codec.parameters(), 1e-2)
    errors = []
    for _ in range(40):
        found = codec(x)
        assert found.x_hat.shape == x.shape and set(found.losses) == {"commitment"}
        error = (found.x_hat - x).abs().mean()
        errors.append(float(error.detach()))
        optimizer.zero_grad()
        (error + found.losses["commitment"]).backward()
        optimizer.step()
        update(codec)
    assert errors[-1] < 0.7 * errors[0]
    assert codec.last_layer().grad.abs().sum() > 0
    assert (found.features is None) == (name == "wavtokenizer")


@pytest.mark.parametrize("name", TREES)
def test_saved_codec_comes_back(name: str, tmp_path: Path) -> None:
    codec, x = made(name), noise(1, 100)
    zoo.save(tmp_path / "codec.safetensors", codec)
    again = codeczoo.load(tmp_path / "codec.safetensors")
    assert type(again) is type(codec) and again.spec == codec.spec
    tokens = codec.encode(x)
    assert torch.equal(again.encode(x).codes, tokens.codes)
    assert torch.equal(again.decode(tokens), codec.decode(tokens))


def test_rates() -> None:
    def spec(codec: WaveformCodec) -> tuple[float, float]:
        return codec.spec.streams[0].rate, codec.spec.bits_per_unit

    assert spec(made("wavtokenizer")) == (4000, 24000)
    assert spec(made("speechtokenizer")) == (pytest.approx(16000 / 6), 32000)
    assert made("wavtokenizer").sample_rate == 24000


def test_authors_configurations() -> None:
    """WavTokenizer's YAML file names a class around the arguments of each part."""
    parts = {part: {"class_path": "a.B", "init_args": WAVTOKENIZER[part]} for part in WAVTOKENIZER if part != "parity"}
    tree = wavtokenizer.original_tree({"model": {"class_path": "a.C", "init_args": parts}})
    width = tree["encoder"].pop("width")
    assert width == 32
    expected = wavtokenizer.original_tree(WAVTOKENIZER)
    assert expected["encoder"].pop("width") == 4 and tree == expected
    with pytest.raises(ConfigError, match="residual_kernel_size must be 3, got 5"):
        speechtokenizer.original_tree(SPEECHTOKENIZER | {"residual_kernel_size": 5})
    with pytest.raises(ConfigError, match="lacks 'backbone'"):
        zoo.original_skeleton(wavtokenizer, {"feature_extractor": {}})
