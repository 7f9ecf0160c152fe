"""Video codecs with random weights: what must hold whatever the weights."""

import copy
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor
from video_cases import ALL, CAUSAL, build, clip, cut, joined, vidtok

import codeczoo
from codeczoo.core.errors import ConfigError, InputError
from codeczoo.core.types import Tokens, TokenSpec
from codeczoo.nn.stream import Chain

CODECS = {name: build(name) for name in ALL}


@pytest.fixture(params=ALL)
def codec(request: pytest.FixtureRequest) -> Any:
    return CODECS[request.param]


def shown(codec: Any, tokens: Tokens) -> Tensor:
    """All that the decoder makes of the tokens, not cut to their size."""
    with torch.no_grad():
        return codec.render(codec.quantizer.decode(tokens.codes)).clamp(0, 1)


# --- time and size ---------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_any_clip_comes_back_in_its_size(codec: Any) -> None:
    f = codec.stride[0]
    for frames in range(1, 2 * f + 3):
        x = clip(frames, 10, 7)
        tokens = codec.encode(x).check_range()
        assert tokens.codes.shape[2:] == (1 + -(-(frames - 1) // f), 3, 2)
        assert tokens.size.tolist() == [[frames, 10, 7]]
        assert codec.decode(tokens).shape == x.shape


@torch.no_grad()
def test_clips_are_filled_up_with_what_they_end_with(codec: Any) -> None:
    """The last frame again, then the last row and column: nothing in front, nothing black."""
    f, x = codec.stride[0], clip(f_plus := codec.stride[0] + 2, 10, 7)
    longer = torch.cat([x, *[x[:, :, -1:]] * (2 * f + 1 - f_plus)], 2)
    larger = torch.cat([longer, *[longer[..., -1:, :]] * 2], 3)
    larger = torch.cat([larger, larger[..., -1:]], 4)
    tokens, wanted = codec.encode(x), codec.encode(larger)
    assert torch.equal(tokens.codes, wanted.codes) and wanted.size.tolist() == [[2 * f + 1, 12, 8]]
    assert torch.equal(codec.decode(tokens), codec.decode(wanted)[:, :, : x.shape[2], :10, :7])


@torch.no_grad()
def test_an_image_is_the_first_frame(codec: Any) -> None:
    x = clip(9, 16, 12, batch=2)
    tokens, image = codec.encode(x), codec.encode(x[:, :, :1])
    assert torch.equal(image.codes, tokens.codes[:, :, :1])
    torch.testing.assert_close(codec.decode(image), codec.decode(tokens)[:, :, :1], atol=1e-6, rtol=0)


@torch.no_grad()
def test_codes_are_many_and_tell_frames_apart(codec: Any) -> None:
    tokens = codec.encode(clip(17, 32, 32))
    assert tokens.codes.unique().numel() > 20
    assert not torch.equal(tokens.codes[:, :, 1], tokens.codes[:, :, 2])
    assert codec.decode(tokens).std() > 0.05


@torch.no_grad()
def test_a_prefix_in_time_is_the_beginning(codec: Any) -> None:
    x, f = clip(11, 8, 8, batch=2), codec.stride[0]
    tokens, whole = codec.encode(x), codec.decode(codec.encode(x))
    for n in range(1, tokens.codes.shape[2] + 1):
        known = min(11, 1 + f * (n - 1))
        part = codec.decode(codec.encode(x, n_positions=n))
        assert part.shape[2] == known
        sure = known if codec.stream().lookahead == 0 or known == 11 else max(1, known - f)
        torch.testing.assert_close(part[:, :, :sure], whole[:, :, :sure], atol=1e-5, rtol=0)
    uneven = codec.decode(tokens.prefix(positions=[1, 2]))
    assert uneven.shape[2] == 1 + f and not uneven[0, :, 1:].any() and uneven[1, :, 1:].any()


@torch.no_grad()
def test_padded_batches_give_what_single_clips_give(codec: Any) -> None:
    lengths = torch.tensor([11, 1, 6, 2])
    x = clip(11, 8, 8, batch=4)  # noise behind the ends must not matter
    tokens = codec.encode(x, lengths=lengths)
    x_hat = codec.decode(tokens)
    for i, n in enumerate(lengths.tolist()):
        alone = codec.encode(x[i : i + 1, :, :n])
        assert torch.equal(tokens[i].codes, alone.codes) and torch.equal(tokens[i].size, alone.size), n
        torch.testing.assert_close(x_hat[i : i + 1, :, :n], codec.decode(alone), atol=3e-5, rtol=0)
        assert not x_hat[i, :, n:].any() and not tokens.codes[i, :, alone.codes.shape[2] :].any()
    again = Tokens.stack([tokens[i] for i in range(4)])
    torch.testing.assert_close(codec.decode(again), x_hat, atol=1e-6, rtol=0)


def test_codebooks_are_a_prefix_too() -> None:
    codec, x = CODECS["vidtok, two codebooks"], clip(5, 8, 8)
    tokens = codec.encode(x, n_codebooks=1)
    assert codec.spec.prefixes == ("positions", "codebooks") and tokens.codes.shape[1] == 1
    assert torch.equal(codec.decode(tokens), codec.decode(codec.encode(x).prefix(codebooks=1)))
    with pytest.raises(InputError, match="n_codebooks must be 1"):
        CODECS["vidtok"].encode(x, n_codebooks=2)
    with pytest.raises(InputError, match="streams"):
        CODECS["vidtok"].encode(x, n_streams=1)


# --- streams ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("sizes", [[1], [4], [3, 0, 7], [100]], ids=str)
def test_streams_give_codes_and_frames_of_the_whole(codec: Any, sizes: list[int]) -> None:
    x = clip(15 if sizes == [1] else 23, 8, 10, batch=2)
    tokens = codec.encode(x)
    stream = codec.stream()
    codes = joined(stream.encode(piece, last)[0] for piece, last in cut(x, sizes))
    assert torch.equal(codes, tokens.codes)
    x_hat = joined(stream.decode((piece,), last) for piece, last in cut(codes, sizes))
    torch.testing.assert_close(x_hat, shown(codec, tokens), atol=1e-5, rtol=0)


@torch.no_grad()
def test_codes_and_frames_come_as_soon_as_they_can(codec: Any) -> None:
    """The image at once, then every f frames; frames of a latent with it, or with as many later ones as is said."""
    stream, f = codec.stream(), codec.stride[0]
    assert stream.lookahead == (f if codec is CODECS["vidtok, blended"] else 0)
    codes = frames = 0
    for t in range(1, 3 * f + 2):
        (came,) = stream.encode(clip(1, 8, 8, seed=t))
        codes += came.shape[2]
        frames += stream.decode((came,)).shape[2]
        assert codes == 1 + (t - 1) // f
        assert frames >= 1 + f * ((t - 1 - stream.lookahead) // f) or t == 1
    assert frames == 3 * f + 1 or stream.lookahead


@torch.no_grad()
def test_streams_take_turns_and_their_states_are_copied(codec: Any) -> None:
    clips = [clip(9, 8, 8, seed=i) for i in range(2)]
    streams, came = [codec.stream() for _ in clips], [[], []]
    for t in range(0, 9, 3):
        for i, stream in enumerate(streams):
            came[i].append(stream.encode(clips[i][:, :, t : t + 3], t == 6)[0])
            if t == 3:  # goes on from a copy, while the other one is spoiled
                streams[i] = copy.copy(stream)
                streams[i]._encoding = copy.deepcopy(stream._encoding)
                stream.encode(clip(3, 8, 8, seed=9))
    for x, codes in zip(clips, came, strict=True):
        assert torch.equal(joined(codes), codec.encode(x).codes)


def held(state: Any) -> int:
    """Bytes of all tensors in a state, counted as they lie in memory."""
    if isinstance(state, Tensor):
        assert not state.requires_grad
        return state.untyped_storage().nbytes()
    values = state if isinstance(state, list | tuple) else vars(state).values() if hasattr(state, "__dict__") else []
    return sum(map(held, values))


def test_streams_keep_no_more_than_they_need(codec: Any) -> None:
    """No graph, no piece of the past, and no more after long clips or pieces than after short ones."""
    stream, sizes = codec.stream(), []
    for i, frames in enumerate((8, 8, 8, 16, 8, 32)):
        x = clip(frames, 8, 8, seed=i)
        codes = stream.encode(x)
        x_hat = stream.decode(codes)
        assert not x_hat.requires_grad
        refs = [weakref.ref(t) for t in (x, *codes, x_hat)]
        del x, codes, x_hat
        assert all(ref() is None for ref in refs)
        sizes.append(held([stream._encoding, stream._decoding, stream._newest]))
    assert len(set(sizes[2:])) == 1, sizes


def test_streams_refuse_wrong_media(codec: Any) -> None:
    with pytest.raises(InputError, match=r"\(B, 3, any, any, any\)"):
        codec.stream().encode(clip(2, 8, 8)[:, :1])
    with pytest.raises(InputError, match=r"\(B, 3, any, any, any\)"):
        codec.encode(clip(2, 8, 8)[:, :, 0])
    with pytest.raises(InputError, match="none empty"):
        codec.encode(clip(0, 8, 8))
    assert codec.stream().encode(clip(0, 8, 8), last=True)[0].shape[2] == 0


@torch.no_grad()
@pytest.mark.parametrize("name", CAUSAL)
def test_the_future_changes_nothing(name: str) -> None:
    """Leaks exactly 0.0: of frames into earlier latents, of latents into frames before theirs."""
    codec, x = CODECS[name], clip(9, 8, 8)
    f = codec.stride[0]
    z, codes = codec.latents(x)[0], codec.encode(x).codes
    for at in range(1, 9):
        y = torch.cat([x[:, :, :at], clip(9 - at, 8, 8, seed=9)], 2)
        known = 1 + (at - 1) // f
        assert torch.equal(codec.latents(y)[0][:, :, :known], z[:, :, :known])
    q = codec.quantizer.decode(codes)
    x_hat = codec.render(q)
    for at in range(1, codes.shape[2]):
        other = codec.render(torch.cat([q[:, :, :at], 1 - q[:, :, at:]], 2))
        known = 1 + f * (at - 1)
        assert torch.equal(other[:, :, :known], x_hat[:, :, :known])
        assert not torch.equal(other[:, :, known : known + f], x_hat[:, :, known : known + f])


# --- training, files -------------------------------------------------------------------------------------------------


def test_training_pass(codec: Any) -> None:
    """Every parameter learns, frames and sizes that are no multiples too, and recomputing gives the same gradients."""
    x, grads = clip(6, 10, 8, batch=2), []
    for checkpointing in (False, True):
        trained = copy.deepcopy(codec).train()
        for part in trained.modules():
            if isinstance(part, Chain):
                part.checkpointing = checkpointing
        torch.manual_seed(0)
        out = trained(x)
        assert out.x_hat.shape == x.shape and out.tokens.size.tolist() == [[6, 10, 8]] * 2
        ((out.x_hat - x).square().mean() + sum(out.losses.values())).backward()
        unused = [key for key, p in trained.named_parameters() if p.grad is None or not p.grad.any()]
        assert not unused, unused
        assert trained.last_layer().grad is not None
        grads.append([p.grad for p in trained.parameters()])
    torch.testing.assert_close(grads[1], grads[0])
    assert codec(x, pixels=False).x_hat is None


@torch.no_grad()
def test_the_evaluation_pass_is_what_encode_and_decode_do(codec: Any) -> None:
    x = clip(6, 10, 8)
    out = codec(x)
    assert torch.equal(out.tokens.codes, codec.encode(x).codes)
    torch.testing.assert_close(out.x_hat.clamp(0, 1), codec.decode(out.tokens), atol=1e-5, rtol=0)


@torch.no_grad()
def test_bf16_changes_few_codes(codec: Any) -> None:
    x = clip(9, 32, 32)
    tokens = codec.encode(x)
    with torch.autocast("cpu", torch.bfloat16):
        rough = codec.encode(x)
        x_hat = codec.decode(tokens)
    step = (codec.quantizer.decode(tokens.codes) - codec.quantizer.decode(rough.codes)).abs().amax(1)
    assert (step == 0).float().mean() > 0.85  # random weights, so latents lie anywhere between levels
    assert (x_hat - codec.decode(tokens)).abs().mean() < 0.01


def test_saved_and_loaded_it_is_the_same(codec: Any, tmp_path: Any) -> None:
    codeczoo.save(tmp_path / "c.safetensors", codec)
    again = codeczoo.load(tmp_path / "c.safetensors")
    x = clip(5, 8, 8)
    assert again.spec == codec.spec == TokenSpec.from_dict(codec.spec.to_dict())
    assert torch.equal(again.encode(x).codes, codec.encode(x).codes)


def test_parts_that_do_not_fit_are_refused() -> None:
    tree = vidtok()
    wrong = [
        tree | {"decoder": tree["decoder"] | {"dim": 4}},
        tree | {"decoder": tree["decoder"] | {"time_levels": [1]}},
        vidtok(norm="batch"),
        vidtok(pad="reflect"),
        vidtok(time_levels=[2]),
        vidtok("blend", pad="constant"),
    ]
    for one, says in zip(wrong, ["dim|channels", "stride", "norm", "pad", "time_levels", "up"], strict=True):
        with pytest.raises(ConfigError, match=says):
            codeczoo.build(one)
