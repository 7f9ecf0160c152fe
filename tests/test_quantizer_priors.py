"""How often entries are used: what every quantizer hands to the range coder."""

import torch
from quantizer_cases import CASES, D, V
from torch import Tensor

from codeczoo.quantizers.grouped import Grouped
from codeczoo.quantizers.residual import Residual
from codeczoo.quantizers.tally import update
from codeczoo.quantizers.vq import EMAVQ


def test_one_for_each_codebook() -> None:
    for name in CASES:
        quantizer = CASES[name].build(V, D)
        priors = quantizer.priors()
        assert len(priors) == len(quantizer.vocab_sizes), name
        for prior, size in zip(priors, quantizer.vocab_sizes, strict=True):
            assert prior is None or prior.shape == (size,), name


def share(counts: Tensor) -> Tensor:
    return counts / counts.sum()


def test_they_follow_the_codes_in_the_order_of_codebooks() -> None:
    torch.manual_seed(0)
    made = [EMAVQ(8, 2, decay=0.5) for _ in range(4)]
    quantizer = Grouped([Residual(made[:2]), Residual(made[2:])])
    for layer in made:
        layer.codebook.copy_(torch.randn(8, 2))
    z = torch.randn(2, 4, 500)
    for _ in range(30):
        quantizer(z)
        update(quantizer)
    codes = quantizer.encode(z)
    for k, prior in enumerate(quantizer.priors()):
        seen = share(torch.bincount(codes[:, k].flatten(), minlength=8).float())
        assert (share(prior) - seen).abs().max() < 0.05, k
