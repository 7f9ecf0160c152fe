"""HaarGrid: what it sees, sizes, prefixes, its start."""

import pytest
import torch

import codeczoo
from codeczoo.backbones.haar2d import Decoder, Encoder
from codeczoo.core.errors import ConfigError, InputError
from codeczoo.engine.compose import compose
from codeczoo.image.haar_grid import HaarGrid


@pytest.fixture
def codec() -> HaarGrid:
    torch.manual_seed(0)
    codec = codeczoo.build(compose("image/haar_grid_tiny")["codec"]).train()
    z = codec.latents(torch.rand(8, 3, 64, 64)).detach()
    while codec.quantizer.starting:  # one layer after the other
        codec.quantizer.initialize(z)
    return codec.eval()


@torch.inference_mode()
def test_any_size_and_any_prefix(codec: HaarGrid) -> None:
    x = torch.rand(2, 3, 37, 50)
    tokens = codec.encode(x)
    assert tokens.codes.shape == (2, 4, 5, 7)
    assert codec.decode(tokens).shape == x.shape
    for n in (1, 3):
        assert torch.equal(codec.encode(x, n_codebooks=n).codes, tokens.codes[:, :n])
        assert codec.decode(tokens.prefix(codebooks=n)).shape == x.shape
    with pytest.raises(InputError):
        codec.encode(x, n_codebooks=5)


@torch.inference_mode()
def test_a_large_picture_gets_the_codes_of_its_parts(codec: HaarGrid) -> None:
    """Nothing looks further than the convolutions reach: no norm and no attention over the picture."""
    x = torch.rand(1, 3, 64, 192)
    whole, part = codec.encode(x).codes, codec.encode(x[..., :128]).codes
    reach = 3  # codes at the cut that see beyond it
    torch.testing.assert_close(part[..., :-reach], whole[..., : 16 - reach], rtol=0, atol=0)
    changed = x.clone()
    changed[..., 128:] = 1 - changed[..., 128:]
    assert torch.equal(codec.encode(changed).codes[..., : 16 - reach], whole[..., : 16 - reach])
    assert not torch.equal(codec.encode(changed).codes, whole)


def test_latents_spread_at_the_start() -> None:
    """torch's own first weights shrink signals until every position falls into one code."""
    torch.manual_seed(0)
    x = torch.rand(2, 3, 8, 8).repeat_interleave(16, 2).repeat_interleave(16, 3)
    z = Encoder(4, [96, 192], [3, 3], 64)(2 * x - 1)
    spread = z.std((0, 2, 3)).mean()
    assert spread > z.std() / 2 and 0.2 < spread < 3


def test_decoder_mirrors_encoder() -> None:
    encoder, decoder = Encoder(2, [8, 16, 24], [1, 0, 2], 4), Decoder(2, [8, 16, 24], [1, 0, 2], 4)
    assert encoder.stride == decoder.stride == 8
    assert decoder(encoder(torch.rand(1, 3, 16, 24))).shape == (1, 3, 16, 24)


def test_numbers_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match="got 2 widths and 1 numbers"):
        Encoder(4, [8, 16], [1], 4)
    with pytest.raises(ConfigError, match="agree in the channels of latents, got 4, 16, 16"):
        tree = compose("image/haar_grid_tiny")["codec"]
        codeczoo.build(tree | {"encoder": tree["encoder"] | {"dim": 4}})
