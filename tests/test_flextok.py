"""FlexTok with random weights: what must hold whatever the weights."""

import itertools
import shutil
from dataclasses import replace
from typing import Any

import pytest
import torch
from flextok_cases import CHANNELS, SIDE, WIDTH, N, build
from torch.nn.attention.flex_attention import flex_attention

import codeczoo
from codeczoo.backbones.flextok import FlowDecoder
from codeczoo.core.errors import ConfigError, InputError
from codeczoo.core.types import Tokens
from codeczoo.nn import adaln
from codeczoo.nn.registers import Attend, CausalRegisters, Everyone, _causal_blocks, _compiled_flex
from codeczoo.quantizers.dropout import PowerDepth, RoundedDepth, UniformDepth

CPU = torch.device("cpu")
SIZES = {  # facts/image.md section 4.4: millions of encoder and decoder, tables of positions included
    "d12_d12": ((768, 12), (768, 12), 85.4, 172.5),
    "d18_d18": ((1152, 18), (1152, 18), 287.3, 578.6),
    "d18_d28": ((1152, 18), (1792, 28), 287.3, 2169.7),
}


@pytest.fixture(scope="module")
def codec() -> Any:
    return build()


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(7))


def latents(batch: int = 2, seed: int = 1) -> torch.Tensor:
    side = 2 * SIDE
    return torch.randn(batch, CHANNELS, side, side, generator=torch.Generator().manual_seed(seed))


def close(a: torch.Tensor, b: torch.Tensor, atol: float = 2e-5) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, atol=atol, rtol=0)


# --- tokens -----------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def test_a_prefix_has_the_first_tokens_of_all(codec: Any, x: torch.Tensor) -> None:
    whole = codec.encode(x).check_range()
    assert whole.codes.shape == (3, 1, N) and whole.codes.unique().numel() > 3
    for n in range(1, N + 1):
        assert torch.equal(codec.encode(x, n_positions=n).codes, whole.codes[:, :, :n])
    lengths: list[int] = []
    handle = codec.encoder.blocks[0].register_forward_pre_hook(lambda _, given: lengths.append(given[0].shape[1]))
    codec.encode(x, n_positions=3)
    handle.remove()
    assert lengths == [SIDE**2 + 3]  # no more registers than are asked for
    for wrong in (0, N + 1):
        with pytest.raises(InputError, match=f"positions must be 1..{N}|positions must be 1"):
            codec.encode(x, n_positions=wrong)


@torch.inference_mode()
def test_tokens_do_not_depend_on_the_batch(codec: Any, x: torch.Tensor) -> None:
    alone = Tokens.stack([codec.encode(x[i : i + 1]) for i in range(3)])
    assert torch.equal(codec.encode(x).codes, alone.codes)


def test_register_i_depends_on_the_registers_up_to_i_alone(codec: Any) -> None:
    rows = codec.encoder.registers.detach().clone().requires_grad_()
    given = torch.func.functional_call(codec.encoder, {"registers": rows}, (latents(),))
    for i in (0, 5, N - 1):
        (gradient,) = torch.autograd.grad(given[:, :, i].square().sum(), rows, retain_graph=True)
        reached = gradient.abs().sum(1) > 0
        assert reached.tolist() == [j <= i for j in range(N)]


def test_every_token_depends_on_the_whole_picture(codec: Any) -> None:
    z = latents().requires_grad_()
    given = codec.encoder(z)
    for i in (0, N - 1):
        (gradient,) = torch.autograd.grad(given[:, :, i].square().sum(), z, retain_graph=True)
        assert (gradient != 0).all()


# --- pictures ---------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def test_every_prefix_decodes_and_mixed_lengths_equal_one_by_one(codec: Any, x: torch.Tensor) -> None:
    tokens = codec.encode(x)
    pictures = [codec.decode(tokens.prefix(positions=n)) for n in range(1, N + 1)]
    assert all(not close(a, b, 1e-4) for a, b in itertools.pairwise(pictures)) and pictures[0].shape == x.shape
    mixed = codec.decode(tokens.prefix(positions=[1, 9, N]))
    for i, n in enumerate([1, 9, N]):
        assert close(mixed[i], pictures[n - 1][i])
        alone = codec.decode(codec.encode(x[i : i + 1], n_positions=n))
        assert close(mixed[i : i + 1], alone)


@torch.inference_mode()
def test_a_prefix_is_all_registers_with_the_tail_masked(codec: Any) -> None:
    """One register that counts as many is what many equal ones are."""
    x_t, time = latents(), [values[0] for values in codec.decoder.at(torch.tensor([0.7]))]
    z = torch.randn(2, 4, N, generator=torch.Generator().manual_seed(3))
    for n in (1, 7, N - 1):
        short = codec.decoder.told(z[:, :, :n])
        masked = codec.decoder.told(z, torch.tensor([n, n]))
        assert (short.registers.shape[1], masked.registers.shape[1]) == (n + 1, N)
        assert close(codec.decoder.velocity(x_t, time, short), codec.decoder.velocity(x_t, time, masked))
    nothing = codec.decoder.told_nothing(2)
    dropped = codec.decoder.told(z, dropped=torch.tensor([True, True]))
    assert (nothing.registers.shape[1], dropped.registers.shape[1]) == (1, N)
    untold = codec.decoder.velocity(x_t, time, nothing)
    assert close(untold, codec.decoder.velocity(x_t, time, dropped))
    assert not close(untold, codec.decoder.velocity(x_t, time, codec.decoder.told(z)), 1e-3)


@torch.inference_mode()
def test_one_time_for_all_is_each_its_own(codec: Any) -> None:
    x_t, t = latents(), torch.tensor([0.3, 0.9])
    told = codec.decoder.told(torch.randn(2, 4, N))
    both = codec.decoder(x_t, t, told).velocity
    for i in range(2):
        time = [values[i] for values in codec.decoder.at(t)]
        assert close(both[i], codec.decoder.velocity(x_t, time, told)[i])


@torch.inference_mode()
def test_the_same_seed_is_the_same_picture(codec: Any, x: torch.Tensor) -> None:
    tokens, before = codec.encode(x), codec.sampling
    once = codec.decode(tokens)
    torch.manual_seed(5)
    assert torch.equal(codec.decode(tokens), once)
    changes = ({"seed": 1}, {"steps": 4}, {"guidance": 3.0}, {"projected": False}, {"solver": "heun"})
    for change in changes:
        codec.sampling = replace(before, **change)
        assert not close(codec.decode(tokens), once, 1e-4), change
    codec.sampling = replace(before, guidance=1.0)
    plain = codec.decode(tokens)
    codec.sampling = replace(before, guidance=1.0, projected=False)
    assert torch.equal(codec.decode(tokens), plain)
    codec.sampling = before


@torch.inference_mode()
def test_solvers_meet_where_steps_are_many() -> None:
    codec, found = build(), {}
    codec.decoder.time_scale = 1.0  # times of random weights are as rough as noise
    before, z = codec.sampling, torch.randn(1, 4, N, generator=torch.Generator().manual_seed(2))
    for solver, steps in (("euler", 8), ("heun", 8), ("euler", 64), ("heun", 32)):
        codec.sampling = replace(before, solver=solver, steps=steps, projected=False)
        found[solver, steps] = codec.sample(z)
    exact = found["heun", 32]
    errors = {key: float((latents - exact).abs().mean()) for key, latents in found.items()}
    assert errors["euler", 64] < errors["euler", 8] / 4 and errors["heun", 8] < errors["euler", 8] / 2, errors


@torch.inference_mode()
def test_guidance_of_one_asks_once_and_of_two_twice_a_step(codec: Any, x: torch.Tensor) -> None:
    asked: list[int] = []
    handle = codec.decoder.patches.register_forward_hook(lambda *_: asked.append(1))
    tokens, before = codec.encode(x), codec.sampling
    counts = {}
    for guidance, solver in itertools.product((1.0, 2.0), ("euler", "heun")):
        codec.sampling = replace(before, guidance=guidance, solver=solver)
        asked.clear()
        codec.decode(tokens)
        counts[guidance, solver] = len(asked)
    handle.remove()
    codec.sampling = before
    assert counts == {(1.0, "euler"): 3, (1.0, "heun"): 6, (2.0, "euler"): 6, (2.0, "heun"): 12}


@torch.inference_mode()
def test_what_depends_on_the_time_alone_is_computed_once(codec: Any, x: torch.Tensor) -> None:
    asked: list[str] = []
    modules = {name: codec.decoder.get_submodule(name) for name in ("time", "modulations.0", "modulations.2")}
    handles = [m.register_forward_hook(lambda *_, name=name: asked.append(name)) for name, m in modules.items()]
    codec.decode(codec.encode(x))
    for handle in handles:
        handle.remove()
    assert asked == list(modules)


@torch.inference_mode()
def test_codes_out_of_range_and_wrong_latents_are_named(codec: Any, x: torch.Tensor) -> None:
    tokens = codec.encode(x)
    tokens.codes[0, 0, 1] = 10**6
    with pytest.raises(InputError, match="code 1000000 is outside"):
        codec.decode(tokens)
    with pytest.raises(InputError, match=r"latents must be \(B, 4, 6, 6\), got \(3, 4, 5, 6\)"):
        codec(x, latents=torch.zeros(3, 4, 5, 6))
    with pytest.raises(InputError, match=r"\(B, 3, 24, 24\)"):
        codec.encode(torch.zeros(1, 3, 24, 28))


# --- attention --------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("registers_only", [False, True])
@pytest.mark.parametrize("n", [1, 5])
def test_flex_attention_of_causal_registers_is_the_masked_one(n: int, registers_only: bool) -> None:
    q, k, v = torch.randn(3, 2, 2, 9 + n, 16, generator=torch.Generator().manual_seed(n)).unbind()
    q = q[:, :, 9:] if registers_only else q
    rule = CausalRegisters(9, n, CPU)
    dense = rule.dense(q, k, v, 0.3)
    assert close(dense, rule.flex(flex_attention, q, k, v, 0.3)) and dense.shape == q.shape
    seen = torch.tensor([[key < 9 or key <= at for key in range(9 + n)] for at in range(9 + n)])[-q.shape[2] :]
    weights = ((q @ k.mT) * 0.3).masked_fill(~seen, float("-inf")).softmax(-1)
    assert close(dense, weights @ v)


def test_masks_kept_from_inference_will_do_in_training() -> None:
    with torch.inference_mode():
        made = _causal_blocks(9, 4, 13, CPU)
    assert made is _causal_blocks(9, 4, 13, CPU) and not made.kv_indices.is_inference()


@pytest.mark.skipif(shutil.which("g++") is None, reason="no compiler of C++")
def test_flex_attention_compiled_gives_the_same() -> None:
    q, k, v = torch.randn(3, 2, 2, 64 + 20, 16, generator=torch.Generator().manual_seed(0)).unbind()
    with torch.no_grad():
        for rule, asked in ((CausalRegisters(64, 20, CPU), q), (Everyone(84, 13, CPU), q[:, :, :64])):
            compiled = rule.flex(_compiled_flex(), asked, k, v, 0.3)
            torch.testing.assert_close(compiled, rule.dense(asked, k, v, 0.3), rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("last", [1, 6])
def test_a_key_that_counts_as_many_is_many_keys(last: int) -> None:
    q, k, v = torch.randn(3, 2, 2, 7, 16, generator=torch.Generator().manual_seed(last)).unbind()
    rule = Everyone(7, last, CPU)
    dense = rule.dense(q[:, :, :4], k, v, 0.3)
    assert close(dense, rule.flex(flex_attention, q[:, :, :4], k, v, 0.3))
    many = [torch.cat([y, y[:, :, -1:].expand(-1, -1, last - 1, -1)], 2) for y in (k, v)]
    assert close(dense, ((q[:, :, :4] @ many[0].mT) * 0.3).softmax(-1) @ many[1])


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("reduced", [False, True])
@torch.inference_mode()
def test_the_codec_is_the_same_through_flex_attention(
    reduced: bool, codec: Any, x: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a GPU does, as far as a processor can tell: there autocast norms in float32 too."""

    def through() -> tuple[torch.Tensor, torch.Tensor]:
        latents = codec.encoder(codec.vae.latents(x), 5)
        return latents, codec.sample(torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0)).tanh())

    with torch.autocast("cpu", torch.bfloat16, enabled=reduced):
        dense = through()
        plain = adaln.norm
        monkeypatch.setattr(adaln, "norm", lambda h: plain(h).float())
        monkeypatch.setattr(Attend, "__call__", lambda self, *given: self.flex(flex_attention, *given))
        flex = through()
    for a, b in zip(dense, flex, strict=True):
        assert close(a, b, 0.1 if reduced else 2e-5) and not torch.equal(a, torch.zeros_like(a))


def test_counts_of_keys_are_not_rounded_under_autocast() -> None:
    q, k, v = torch.randn(3, 1, 1, 5, 16, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16).unbind()
    rule = Everyone(5, 256, CPU)
    with torch.autocast("cpu", torch.bfloat16):
        given = rule(q, k, v, 0.3)
    exact = rule.dense(q.float(), k.float(), v.float(), 0.3)
    assert given.dtype == torch.bfloat16 and close(given.float(), exact, 6e-3)


# --- training ---------------------------------------------------------------------------------------------------------


def test_every_parameter_but_the_vae_s_gets_gradient(x: torch.Tensor) -> None:
    align = {"_target_": "codeczoo.backbones.flextok.Alignment", "width": WIDTH, "dim": 5, "layer": 1, "hidden": 8}
    codec = build(untold=0.5).train()
    tree = codec.config
    tree["decoder"]["align"] = align
    codec = codeczoo.build(tree).train()
    for p in codec.parameters():
        torch.nn.init.normal_(p, std=0.15)
    torch.manual_seed(3)
    out = codec(x.repeat(4, 1, 1, 1), pixels=False)
    assert out.x_hat is None and out.features.shape == (12, 5, SIDE, SIDE)
    (out.losses["flow"] + out.features.square().mean()).backward()
    without = [name for name, p in codec.named_parameters() if p.grad is None or not p.grad.any()]
    assert without and all(name.startswith("vae.") for name in without), without


def test_registers_all_get_gradient_and_masked_ones_none(x: torch.Tensor) -> None:
    codec = build(untold=0.0).train()
    codec.dropout.forward = lambda batch, n, device: torch.full((batch,), 6, device=device)
    codec(x, pixels=False).losses["flow"].backward()
    reached = codec.decoder.register_positions.grad.abs().sum(1) > 0
    assert reached.tolist() == [i < 6 for i in range(N)]
    assert codec.decoder.mask_token.grad.any() and not codec.decoder.null_token.grad.any()


def test_the_loss_is_that_of_the_velocity_at_known_noise(x: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = build(untold=1.0).train()
    s, noise = torch.tensor([0.2, 0.5, 0.9]), latents(3, seed=9)
    codec.times.forward = lambda batch, device: s
    monkeypatch.setattr(torch, "randn_like", lambda like: noise)
    with torch.no_grad():
        out = codec(x)
        clean = codec.vae.latents(x)
        share = s.view(-1, 1, 1, 1)
        x_t = share * noise + (1 - share) * clean
        velocity = codec.decoder(x_t, s, codec.decoder.told_nothing(3)).velocity
        assert torch.allclose(out.losses["flow"], (velocity - (noise - clean)).square().mean(), rtol=1e-5)
        assert close(out.x_hat, codec.vae.pixels(x_t - share * velocity), 1e-4)
        assert torch.equal(codec(x, latents=clean).losses["flow"], out.losses["flow"])
        assert not torch.equal(codec(x, latents=clean + 1).losses["flow"], out.losses["flow"])


def test_training_leaves_and_drops_as_it_is_told_and_evaluation_nothing(x: torch.Tensor) -> None:
    codec = build(untold=0.25).train()
    torch.manual_seed(0)
    kept, dropped = codec.left(2000, CPU)
    assert set(kept.tolist()) == set(range(1, N + 1)) and 0.2 < dropped.float().mean() < 0.3
    assert codec.eval().left(5, CPU) == (None, None)


@pytest.mark.parametrize(
    ("rule", "n", "wanted"),
    [
        (UniformDepth(), 5, {1: 0.2, 2: 0.2, 3: 0.2, 4: 0.2, 5: 0.2}),
        (PowerDepth(), 16, dict.fromkeys((1, 2, 4, 8, 16), 0.2)),
        (PowerDepth(), 12, dict.fromkeys((1, 2, 4, 8, 12), 0.2)),
        (PowerDepth(), 1, {1: 1.0}),
        (RoundedDepth(), 16, {1: 1 / 16, 2: 1 / 16, 4: 1 / 8, 8: 1 / 4, 16: 1 / 2}),
        (RoundedDepth(), 12, {1: 1 / 12, 2: 1 / 12, 4: 1 / 6, 8: 1 / 3, 12: 1 / 3}),
        (RoundedDepth(), 1, {1: 1.0}),
    ],
)
def test_nested_dropout_draws_what_it_says(rule: Any, n: int, wanted: dict[int, float]) -> None:
    torch.manual_seed(0)
    drawn = rule(20_000, n, CPU)
    assert drawn.dtype == torch.int64
    found = {int(k): float((drawn == k).float().mean()) for k in drawn.unique()}
    assert found == pytest.approx(wanted, abs=0.015)


def test_recomputed_activations_give_the_same_gradients(x: torch.Tensor) -> None:
    gradients = []
    for checkpointing in (False, True):
        codec = build().train()
        codec.encoder.checkpointing = codec.decoder.checkpointing = checkpointing
        torch.manual_seed(2)
        codec(x, pixels=False).losses["flow"].backward()
        gradients.append({name: p.grad for name, p in codec.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() and len(gradients[0]) > 20
    assert all(close(gradients[0][name], gradients[1][name], 1e-6) for name in gradients[0])


# --- configuration ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_sizes_have_the_published_number_of_parameters(size: str) -> None:
    first, second, encoder_m, decoder_m = SIZES[size]
    tree = build().config
    for side, (width, depth) in (("encoder", first), ("decoder", second)):
        shape = {"channels": 16, "side": 16, "patch": 2, "width": width, "depth": depth, "heads": depth}
        tree[side] = tree[side] | shape | {"n_tokens": 256, "dim": 6}
    with torch.device("meta"):
        found = [codeczoo.build(tree[side]) for side in ("encoder", "decoder")]
    counts = [sum(value.numel() for value in part.state_dict().values()) / 1e6 for part in found]
    assert counts == pytest.approx([encoder_m, decoder_m], abs=0.06)


def test_it_begins_as_published() -> None:
    codec = codeczoo.build(build().config)
    zeros = {name for name, p in codec.named_parameters() if not name.startswith("vae.") and not p.any()}
    modulations = [f"decoder.modulations.{i}.linear" for i in range(3)] + ["decoder.last_modulation.linear"]
    parts = ["encoder.project", "decoder.project", *modulations]
    biases = ["encoder.patches.embed.bias", "decoder.patches.embed.bias"]
    assert zeros == {*biases, *(f"{part}.{what}" for part in parts for what in ("weight", "bias"))}
    bound = (6 / (WIDTH + WIDTH)) ** 0.5
    assert bound * 0.9 < codec.encoder.blocks[0].q.weight.abs().max().item() <= bound


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decoder.n_tokens": 8}, "must agree"),
        ({"encoder.channels": 8}, "must agree"),
        ({"decoder.side": 4}, "must agree"),
        ({"encoder.dim": 3}, "dims differ: 3, quantizer 4, 4"),
        ({"untold": 1.5}, "share within 0..1, got 1.5"),
        ({"encoder.heads": 5}, "5 heads do not divide width 32"),
        ({"encoder.width": 30}, "multiple of 4 channels, got 30"),
    ],
)
def test_parts_that_do_not_fit_are_named(change: dict[str, Any], message: str) -> None:
    tree = build().config
    for name, value in change.items():
        place, _, key = name.rpartition(".")
        (tree[place] if place else tree)[key] = value
    with pytest.raises(ConfigError, match=message):
        codeczoo.build(tree)


def test_save_and_load_is_the_same_codec(codec: Any, x: torch.Tensor, tmp_path: Any) -> None:
    codeczoo.save(tmp_path / "c.safetensors", codec)
    again = codeczoo.load(tmp_path / "c.safetensors")
    assert again.sampling == codec.sampling and again.spec == codec.spec and not again.training
    with torch.inference_mode():
        assert torch.equal(again.decode(again.encode(x)), codec.decode(codec.encode(x)))


def test_an_alignment_wants_a_layer_of_the_flow() -> None:
    from codeczoo.backbones.flextok import Alignment

    with pytest.raises(ConfigError, match=r"layer must be within 1..1 and width 32, got 2 and 32"):
        FlowDecoder(CHANNELS, SIDE, 2, WIDTH, 2, 2, N, 4, align=Alignment(WIDTH, 5, layer=2))
