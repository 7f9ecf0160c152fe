"""P20: encode and decode as programs of torch.export, for any batch and length, that run without codeczoo."""

import io

import pytest
import torch
from quantizer_cases import CASES, TRAINING, D, latents, ready
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export, load, save

from codeczoo.core.base import Quantizer
from codeczoo.quantizers import lookup

SIZES = [(5, D, 40), (1, D, 3000)]


class One(nn.Module):
    """A method of a quantizer as the forward of a module, which is what can be exported."""

    def __init__(self, quantizer: Quantizer, method: str) -> None:
        super().__init__()
        self.quantizer, self.method = quantizer, method

    def forward(self, x: Tensor) -> Tensor:
        return getattr(self.quantizer, self.method)(x)


def program(quantizer: Quantizer, method: str, example: Tensor) -> ExportedProgram:
    """Of any batch and length; written and read again."""
    any_size = ({0: Dim.DYNAMIC, 2: Dim.DYNAMIC},)
    file = io.BytesIO()
    save(export(One(quantizer, method), (example,), dynamic_shapes=any_size), file)
    file.seek(0)
    return load(file)


@pytest.mark.parametrize("name", [name for name in CASES if not set(name.split()) & TRAINING])
def test_p20_programs_of_any_size(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "LARGE", 1 << 10)  # a few of the example's tokens
    quantizer = ready(name).eval()
    z = latents((3, D, 11))
    encode, decode = program(quantizer, "encode", z), program(quantizer, "decode", quantizer.encode(z))
    for seed, size in enumerate(SIZES):
        other = latents(size, seed)
        codes = encode.module()(other)
        assert torch.equal(codes, quantizer.encode(other))
        assert torch.equal(decode.module()(codes), quantizer.decode(codes))
    text = encode.graph_module.print_readable(False) + decode.graph_module.print_readable(False)
    assert "codeczoo." not in text, "an operation of ours"
