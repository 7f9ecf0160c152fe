"""TiTok, One-D-Piece, TA-TiTok, MaskGIT-VQGAN with random weights: what must hold whatever the weights."""

import itertools
from typing import Any

import pytest
import torch
from conftest import one_d_piece_tree
from torch._dynamo.testing import CompileCounter

import codeczoo
from codeczoo import zoo
from codeczoo.backbones.vit1d import Encoder1D
from codeczoo.core.errors import ConfigError, InputError, WeightsError
from codeczoo.core.types import Tokens


def build(tree: dict[str, Any], seed: int = 0) -> Any:
    torch.manual_seed(seed)
    codec = codeczoo.build(tree).eval()
    for p in codec.parameters():  # larger than at the start of training, so that a broken branch shows
        torch.nn.init.normal_(p, std=0.15) if p.ndim > 1 else None
    return codec


def titok_tree(head: str = "pixel") -> dict[str, Any]:
    tree = one_d_piece_tree() | {"_target_": "codeczoo.image.titok.TiTok"}
    if head == "codebook":
        cnn = {"_target_": "codeczoo.backbones.maskgit_cnn.CNNDecoder", "hidden": 32, "multipliers": [1, 1, 1, 1],
               "n_blocks": 1, "dim": 8}
        tree["head"] = {"_target_": "codeczoo.image.titok.CodebookHead", "width": 32, "vocab_size": 50, "decoder": cnn}
    return tree


def tatitok_tree() -> dict[str, Any]:
    tower = {"_target_": "codeczoo.backbones.text.ByteText", "length": 12, "dim": 20}
    tree = one_d_piece_tree() | {"_target_": "codeczoo.image.tatitok.TATiTok"}
    return tree | {"text_length": 12, "text_dim": 20, "text_tower": tower}


def maskgit_tree() -> dict[str, Any]:
    cnn = {"hidden": 32, "multipliers": [1, 2], "n_blocks": 1, "dim": 8}
    return {
        "_target_": "codeczoo.image.maskgit_vqgan.MaskGITVQGAN",
        "encoder": {"_target_": "codeczoo.backbones.maskgit_cnn.CNNEncoder", **cnn},
        "quantizer": {"_target_": "codeczoo.quantizers.vq.VQ", "vocab_size": 30, "dim": 8},
        "decoder": {"_target_": "codeczoo.backbones.maskgit_cnn.CNNDecoder", **cnn},
    }


def residual_tree() -> dict[str, Any]:
    layers = [{"_target_": "codeczoo.quantizers.vq.VQ", "vocab_size": v, "dim": 8} for v in (64, 32, 16)]
    return one_d_piece_tree() | {"quantizer": {"_target_": "codeczoo.quantizers.residual.Residual", "layers": layers}}


def fsq_tree() -> dict[str, Any]:
    tree = one_d_piece_tree() | {"quantizer": {"_target_": "codeczoo.quantizers.fsq.FSQ", "levels": [5] * 8}}
    return tree | {"_target_": "codeczoo.image.titok.TiTok"}


TREES = {
    "titok": titok_tree(), "titok_codebook": titok_tree("codebook"), "one_d_piece": one_d_piece_tree(),
    "tatitok": tatitok_tree(), "maskgit_vqgan": maskgit_tree(),
    "residual": residual_tree(), "fsq": fsq_tree(),
}


@pytest.fixture(params=TREES)
def codec(request: pytest.FixtureRequest) -> Any:
    return build(TREES[request.param])


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(7))


def test_codes_are_in_range_and_do_not_depend_on_the_batch(codec: Any, x: torch.Tensor) -> None:
    tokens = codec.encode(x).check_range()
    alone = Tokens.stack([codec.encode(x[i : i + 1]) for i in range(3)])
    assert torch.equal(tokens.codes, alone.codes)
    assert tokens.codes.unique().numel() > 3


def test_decode_of_encode_is_the_evaluation_forward(codec: Any, x: torch.Tensor) -> None:
    with torch.no_grad():
        out = codec(x)
        assert torch.equal(out.tokens.codes, codec.encode(x).codes)
        assert torch.allclose(codec.decode(out.tokens), out.x_hat.clamp(0, 1), atol=1e-5)
    assert codec.decode(out.tokens).shape == x.shape


def test_every_parameter_gets_gradient(codec: Any, x: torch.Tensor) -> None:
    codec.train()
    torch.manual_seed(3)
    out = codec(x)
    loss = (out.x_hat - x).square().mean() + sum(out.losses.values())
    loss.backward()
    without = [name for name, p in codec.named_parameters() if p.grad is None or not p.grad.any()]
    assert not [name for name in without if "qkv.bias" not in name], without


def test_save_and_load_is_the_same_codec(codec: Any, x: torch.Tensor, tmp_path: Any) -> None:
    codeczoo.save(tmp_path / "c.safetensors", codec, recipe="a: 1", extra={"steps": 3})
    again = codeczoo.load(tmp_path / "c.safetensors")
    assert again.spec == codec.spec and not again.training
    assert torch.equal(again.decode(again.encode(x)), codec.decode(codec.encode(x)))
    from codeczoo.zoo import weights_hash

    assert weights_hash(again) == weights_hash(codec)
    next(again.parameters()).data.flatten()[0] += 1
    assert weights_hash(again) != weights_hash(codec)


def test_codebooks_of_a_residual_quantizer_are_a_prefix_too(x: torch.Tensor) -> None:
    codec = build(residual_tree())
    tokens = codec.encode(x, n_positions=5, n_codebooks=2)
    assert tokens.codes.shape == (3, 2, 5) and codec.spec.prefixes == ("positions", "codebooks")
    assert torch.equal(codec.decode(tokens), codec.decode(codec.encode(x).prefix(positions=5, codebooks=2)))
    assert not torch.equal(codec.decode(tokens), codec.decode(codec.encode(x).prefix(positions=5)))


def test_a_table_calls_a_run_by_its_recipe(tmp_path: Any, tiny_codec: Any) -> None:
    run = tmp_path / "one_d_piece_small" / "2026-11-22_04-31-53"
    run.mkdir(parents=True)
    for name in ("best", "last"):
        codeczoo.save(run / f"{name}.safetensors", tiny_codec)
    codeczoo.save(tmp_path / "mine.safetensors", tiny_codec)
    assert zoo.title(run) == zoo.title(run / "last.safetensors") == "one_d_piece_small"
    assert zoo.title(tmp_path / "mine.safetensors") == "mine"


def test_loading_refuses_what_is_no_codec(tmp_path: Any, tiny_codec: Any) -> None:
    from safetensors.torch import save_file

    with pytest.raises(InputError, match="no such file"):
        codeczoo.load(tmp_path / "none.safetensors")
    (tmp_path / "x.safetensors").write_bytes(b"not safetensors at all")
    with pytest.raises(WeightsError, match="not a readable safetensors"):
        codeczoo.load(tmp_path / "x.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "y.safetensors")
    with pytest.raises(WeightsError, match="describes no codec"):
        codeczoo.load(tmp_path / "y.safetensors")
    evil = {
        "os.system": "must begin with codeczoo",
        "codeczoo.core.config.import_module": "is importlib.import_module",
        "codeczoo.cli.main.main": "no network module",
    }
    for target, message in evil.items():
        tiny_codec.config["head"] = {"_target_": target}
        codeczoo.save(tmp_path / "evil.safetensors", tiny_codec)
        with pytest.raises(ConfigError, match=message):
            codeczoo.load(tmp_path / "evil.safetensors")


def test_every_prefix_decodes_and_mixed_lengths_equal_one_by_one(x: torch.Tensor) -> None:
    codec = build(one_d_piece_tree())
    tokens = codec.encode(x)
    pictures = [codec.decode(tokens.prefix(positions=n)) for n in range(1, 17)]
    assert all(not torch.equal(a, b) for a, b in itertools.pairwise(pictures))
    mixed = codec.decode(tokens.prefix(positions=[1, 9, 16]))
    for i, n in enumerate([1, 9, 16]):
        assert torch.allclose(mixed[i], pictures[n - 1][i], atol=1e-5)
    assert torch.equal(codec.encode(x, n_positions=5).codes, tokens.codes[:, :, :5])


def test_tail_drop_shows_the_decoder_every_length_and_trains_all_codes(x: torch.Tensor) -> None:
    codec = build(one_d_piece_tree()).train()
    seen: set[int] = set()
    codec.decoder.register_forward_pre_hook(lambda _, args: seen.add(args[0].shape[2]))
    for _ in range(200):
        with torch.no_grad():
            assert codec(x[:1]).tokens.codes.shape == (1, 1, 16)
    assert seen == set(range(1, 17))


def test_tail_drop_compiles_to_one_graph_of_one_length(x: torch.Tensor) -> None:
    codec = build(one_d_piece_tree()).train()
    backend = CompileCounter()
    compiled = torch.compile(codec, backend=backend, fullgraph=True)
    with torch.no_grad():
        prefixes = [codec.render(codec.quantizer(codec.encoder(x)).z[:, :, :n]) for n in range(1, 17)]
        found = [compiled(x).x_hat for _ in range(60)]
    lengths = {min(range(16), key=lambda i: (y - prefixes[i]).abs().max().item()) for y in found}
    assert all(min((y - p).abs().max() for p in prefixes) < 1e-5 for y in found)
    assert len(lengths) > 8 and backend.frame_count == 1


def test_titok_has_no_prefix(x: torch.Tensor) -> None:
    codec = build(titok_tree())
    with pytest.raises(InputError, match="no prefix of positions"):
        codec.encode(x, n_positions=4)
    with pytest.raises(InputError, match="decodes all 16 positions, got 4"):
        codec.decode(Tokens(codec.spec, (torch.zeros(1, 1, 4, dtype=torch.int64),), torch.tensor([[32, 32]])))


def test_proxy_stage_gives_logits_without_pixels(x: torch.Tensor) -> None:
    codec = build(titok_tree("codebook")).train()
    out = codec(x, pixels=False)
    assert out.x_hat is None and out.logits is not None and out.logits.shape == (3, 50, 4, 4)


def test_wrong_media_is_one_clear_line(codec: Any) -> None:
    with pytest.raises(InputError, match="takes float"):
        codec.encode(torch.zeros(1, 1, 32, 32))
    with pytest.raises(InputError, match="got uint8"):
        codec.encode(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    if codec.spec.input_size:
        with pytest.raises(InputError, match=r"\(B, 3, 32, 32\)"):
            codec.encode(torch.zeros(1, 3, 32, 48))


def test_codes_out_of_range_are_named(codec: Any, x: torch.Tensor) -> None:
    tokens = codec.encode(x)
    tokens.codes.movedim(1, 0)[0, 0, ..., 1] = 10**6
    with pytest.raises(InputError, match="code 1000000 is outside"):
        codec.decode(tokens)


def test_text_changes_the_picture_but_not_the_tokens(x: torch.Tensor) -> None:
    codec = build(tatitok_tree())
    tokens = codec.encode(x)
    empty, captioned = codec.decode(tokens), codec.decode(tokens, text=["a red house", "", "naïve"])
    assert torch.equal(empty[1], captioned[1]) and not torch.equal(empty[0], captioned[0])
    features = codec.text_tower(["a red house", "", "naïve"], x.device)
    assert torch.equal(codec.decode(tokens, text=features), captioned)
    with pytest.raises(InputError, match="text features must be"):
        codec.decode(tokens, text=features[:, :5])
    codec.text_tower = None
    with pytest.raises(InputError, match="wants text features"):
        codec.decode(tokens)


def test_clip_text_tower_by_path(tmp_path: Any) -> None:
    transformers = pytest.importorskip("transformers")
    import json

    from codeczoo.backbones.text import CLIPText
    from codeczoo.core.errors import MissingError

    with pytest.raises(MissingError, match="huggingface-cli download"):
        CLIPText(str(tmp_path / "none"))(["a"], torch.device("cpu"))
    letters = [chr(c) for c in range(97, 123)]
    vocab = {t: i for i, t in enumerate([*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"])}
    (tmp_path / "vocab.json").write_text(json.dumps(vocab))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    transformers.CLIPTokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt")).save_pretrained(tmp_path)
    config = transformers.CLIPTextConfig(
        vocab_size=len(vocab), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=12, eos_token_id=vocab["<|endoftext|>"], bos_token_id=vocab["<|startoftext|>"],
    )
    model = transformers.CLIPTextModel(config).eval()
    model.save_pretrained(tmp_path)
    tower = CLIPText(str(tmp_path), length=12)
    features = tower(["ab", ""], torch.device("cpu"))
    ids = torch.zeros(1, 12, dtype=torch.int64)  # open_clip pads with 0 and masks nothing
    ids[0, :4] = torch.tensor([vocab["<|startoftext|>"], vocab["a"], vocab["b</w>"], vocab["<|endoftext|>"]])
    with torch.no_grad():
        assert torch.allclose(features[:1], model(input_ids=ids).last_hidden_state, atol=1e-6)
    assert not tower.state_dict() and not list(tower.parameters())


def test_any_size_pads_and_trims() -> None:
    codec = build(maskgit_tree())
    x = torch.rand(2, 3, 37, 50)
    tokens = codec.encode(x)
    assert tokens.codes.shape == (2, 1, 19, 25) and codec.decode(tokens).shape == x.shape


def test_scrambled_reshape_is_off_by_default_and_mixes_latents() -> None:
    """Without it a latent token reaches its own position alone; with it, every position holds a slice of all tokens."""
    tree = one_d_piece_tree()
    plain = build(tree)
    tree["encoder"] = tree["encoder"] | {"scrambled_reshape_bug": True}
    scrambled = build(tree)
    last = torch.zeros(1, 16, 32)
    last[:, 3] = 1  # only latent 3 speaks
    for codec, positions in ((plain, 1), (scrambled, 16)):
        codec.encoder.transformer.forward = lambda *args, **kwargs: last
        z = codec.encoder(torch.rand(1, 3, 32, 32)) - codec.encoder.project.bias[:, None]
        assert int(z.abs().sum(1).gt(1e-7).sum()) == positions


@pytest.mark.parametrize("n_tokens", [1, 4, 21, 90])
def test_grid_places_begin_where_they_look(n_tokens: int) -> None:
    """Latents are cells of a quadtree, coarse to fine, and attention prefers what is in the same place."""
    torch.manual_seed(0)
    encoder = Encoder1D(64, 8, 64, 1, 1, n_tokens, 4, init_std=64**-0.5, places="grid")
    patches, latents = encoder.positional_embedding[1:].detach(), encoder.latent_positional_embedding.detach()
    torch.testing.assert_close(latents[0], patches.mean(0))
    if n_tokens >= 5:
        torch.testing.assert_close(latents[1:5].mean(0), patches.mean(0))
    if n_tokens >= 85:
        assert (torch.cdist(latents[21:85], patches).min(1).values < 1e-4).all()  # each is the place of one patch
    attention = encoder.transformer.blocks[0].attention
    x = torch.nn.functional.layer_norm(patches, (64,))
    q, k, _ = attention.qkv(x).chunk(3, -1)
    found = (q @ k.T).argmax(1)
    assert (found == torch.arange(64)).float().mean() > 0.5  # by chance 1 / 64
    with pytest.raises(ConfigError, match="places: no 'gird'; did you mean grid"):
        Encoder1D(64, 8, 64, 1, 1, 4, 4, places="gird")
