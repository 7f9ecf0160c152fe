"""Clips piece by piece, and large frames in tiles."""

from collections.abc import Iterator
from typing import Any
from weakref import ref

import pytest
import torch
from test_hitvideo import CODECS as HIERARCHICAL
from torch import Tensor
from video_cases import build, clip

from codeczoo.core.errors import InputError
from codeczoo.core.types import Tokens
from codeczoo.video import pieces
from codeczoo.video.pieces import decode_pieces, encode_pieces
from codeczoo.video.tiles import Tiles

NAMES = ["vidtok", "vidtok, blended", "vidtok, two codebooks", "cosmos", *HIERARCHICAL]
ROUNDING = 5e-5  # these random decoders reach 30 before they are clamped to 1


def codec_of(name: str) -> Any:
    return HIERARCHICAL[name] if name in HIERARCHICAL else build(name)


def joined(codec: Any, tokens: Tokens, tile: int | None = None) -> Tensor:
    return torch.cat(list(decode_pieces(codec, tokens, tile)), 2)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "AT_ONCE", 20 * 28 * 4)
    torch.set_grad_enabled(True)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_pieces_are_the_whole(name: str) -> None:
    codec, x = codec_of(name), clip(22, 20, 28)
    whole = codec.encode(x)
    for sizes in ([22], [1] * 22, [7, 7, 8], [0, 5, 17]):
        found = encode_pieces(codec, x.split(sizes, 2))
        assert all(torch.equal(a, b) for a, b in zip(found.streams, whole.streams, strict=True))
        assert found.size.tolist() == [[22, 20, 28]] and found.spec == codec.spec
    x_hat = codec.decode(whole)
    assert x_hat.std() > 0.01 and torch.allclose(joined(codec, whole), x_hat, atol=ROUNDING)
    assert max(piece.shape[2] for piece in decode_pieces(codec, whole)) <= 9
    short = whole.prefix(positions=2)
    assert torch.allclose(joined(codec, short), codec.decode(short), atol=ROUNDING)
    for n in range(1, len(whole.streams) + 1 if "streams" in codec.spec.prefixes else 1):
        fewer = whole.prefix(streams=n)
        assert torch.allclose(joined(codec, fewer), codec.decode(fewer), atol=ROUNDING)


def test_pieces_are_let_go() -> None:
    """No piece lives on when the next but one is asked for: memory does not grow with the duration."""
    codec, given = build("vidtok"), []

    def made() -> Iterator[Tensor]:
        for i in range(6):
            assert all(old() is None for old in given[:-1])
            piece = clip(4, 16, 16, seed=i)
            given.append(ref(piece))
            yield piece
            del piece

    tokens = encode_pieces(codec, made())
    seen: list[Any] = []
    for piece in decode_pieces(codec, tokens):
        assert all(old() is None for old in seen[:-1])
        seen.append(ref(piece))
    assert len(given) == 6 and len(seen) > 1


def test_what_is_not_one_clip_is_refused() -> None:
    codec = build("vidtok")
    padded = codec.encode(clip(9, 16, 16, batch=2), lengths=torch.tensor([9, 3]))
    with pytest.raises(InputError, match="one by one"):
        next(decode_pieces(codec, padded))
    assert torch.allclose(joined(codec, padded[1]), codec.decode(padded[1]), atol=ROUNDING)
    for nothing in ([], [clip(1, 8, 8)[:, :, :0]]):
        with pytest.raises(InputError, match="without frames"):
            encode_pieces(codec, nothing)


class Local:
    """A codec whose decoder sees nothing but its own position: it shows the sum of streams of 4x4 and 8x8."""

    def stream(self) -> "Local":
        return self

    def decode(self, streams: tuple[Tensor, ...], last: bool) -> Tensor:
        fine, coarse = (
            codes.repeat_interleave(n, 3).repeat_interleave(n, 4) for codes, n in ((streams[0], 4), (streams[1], 8))
        )
        return (fine + coarse[..., : fine.shape[3], : fine.shape[4]]).expand(-1, 3, -1, -1, -1) / 200


@pytest.mark.parametrize("size", [(64, 64), (70, 33), (8, 100), (31, 29)])
@pytest.mark.parametrize("tile", [16, 24, 40, 200])
def test_tiles_of_a_local_decoder_are_the_whole(size: tuple[int, int], tile: int) -> None:
    rows, columns = (-(-side // 8) for side in size)
    fine = torch.randint(0, 100, (1, 1, 3, 2 * rows, 2 * columns))
    coarse = torch.randint(0, 100, (1, 1, 3, rows, columns))
    local: Any = Local()
    whole = local.decode((fine, coarse), True)
    tiles = Tiles(local, [(4, 4), (8, 8)], size, tile)
    x_hat = tiles.decode((fine, coarse), True)
    assert x_hat.shape == whole.shape and torch.allclose(x_hat, whole, atol=1e-6)
    assert all(max(b - a, d - c) <= max(tile, 8) for (a, b), (c, d), _ in tiles._tiles)


@torch.no_grad()
def test_tiles_have_no_seams() -> None:
    """A constant that each tile gets wrong in its own way changes smoothly from one tile to the next."""

    class Uneven(Local):
        calls = 0

        def decode(self, streams: tuple[Tensor, ...], last: bool) -> Tensor:
            Uneven.calls += 1
            return streams[0].repeat_interleave(8, 3).repeat_interleave(8, 4).expand(-1, 3, -1, -1, -1) * Uneven.calls

    uneven: Any = Uneven()
    codes = torch.ones(1, 1, 1, 1, 20)
    x_hat = Tiles(uneven, [(8, 8)], (8, 160), 64).decode((codes,), True)[0, 0, 0, 4]
    assert x_hat[0] == 1 and x_hat[-1] == Uneven.calls == 3 and (x_hat.diff().abs() < 0.12).all()


@pytest.mark.parametrize("name", ["vidtok", "ResidualMerge"])
@torch.no_grad()
def test_tiles_of_clips(name: str) -> None:
    codec, x = codec_of(name), clip(9, 50, 36)
    tokens = codec.encode(x)
    x_hat = joined(codec, tokens, 32)
    assert x_hat.shape == x.shape and not torch.equal(x_hat, codec.decode(tokens))
    assert torch.allclose(joined(codec, tokens, 50), codec.decode(tokens), atol=ROUNDING)
    with pytest.raises(InputError, match="at least"):
        joined(codec, tokens, 7)
