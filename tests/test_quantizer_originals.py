"""Other projects' quantizers: their codes and vectors, on latents that went through their own code.

Fixtures come from CODECZOO_PARITY (default ../shared/parity).
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from conftest import SHARED
from safetensors.torch import load_file
from torch import Tensor

from codeczoo.core.base import Quantizer
from codeczoo.core.errors import InputError, WeightsError
from codeczoo.quantizers import originals
from codeczoo.quantizers.dimensionwise import Dimensionwise
from codeczoo.quantizers.fsq import FSQ
from codeczoo.quantizers.lfq import GQ, LFQ
from codeczoo.quantizers.multiscale import MultiScale
from codeczoo.quantizers.scales import Bicubic
from codeczoo.quantizers.shared_mapping import SharedMapping

PARITY = Path(os.environ.get("CODECZOO_PARITY", SHARED / "parity"))


class Case(NamedTuple):
    """Where a project keeps its quantizer, and how its tokens are ordered.

    Args:
        layout: see `originals.LAYOUTS`, or a function that makes a quantizer without weights of the latents' channels.
        prefix: of the quantizer's tensors.
        first: "batch" for tokens (B, K, *S) or (B, *S), "codebook" for (K, B, *S), "last" for (B, *S, K).
        z: name of the latents.
        tokens: name of the tokens.
        value: name of the decoded latents, if they are there.
        margin: name of the margins of the tokens.
    """

    layout: str | Callable[[int], Quantizer]
    prefix: str = ""
    first: str = "batch"
    z: str = "z"
    tokens: str = "tokens"
    value: str = ""
    margin: str = "margin"


CASES = {
    "encodec_24khz_style": Case("encodec", "quantizer.", value="quantized"),
    "hf_encodec_24khz": Case("encodec", "quantizer.", z="z_frame0", tokens="tokens_bw21.6", margin="margin_frame0"),
    "speechtokenizer": Case("encodec", "quantizer.", first="codebook", value="quantized"),
    "dm_codec": Case("encodec", "quantizer.", first="codebook", value="quantized"),
    "wavtokenizer": Case("encodec", "feature_extractor.encodec.quantizer.", first="codebook", value="features"),
    "mimi": Case("moshi", "quantizer.", value="quantized"),
    "hf_mimi": Case("moshi", "quantizer."),
    "dac": Case("dac", "quantizer.", z="encoder_out", value="z_from_codes"),
    "hf_dac": Case("dac", "quantizer.", z="encoder_out"),
    "ibq": Case("ibq", "quantize.", value="z_quantized"),
    "llamagen_vq": Case("llamagen", "quantize.", value="z_quantized"),
    "gigatok": Case("llamagen", "quantize.", value="z_quantized"),
    "maskgit_vqgan": Case("taming", "quantize.", value="z_quantized"),
    "open_magvit2": Case(lambda d: LFQ(d, order="little"), value="z_quantized"),
    "wetok": Case(lambda d: GQ(3, d // 3), first="last", value="z_quantized"),
    "cosmos_di": Case(lambda d: FSQ([8, 8, 8, 5, 5, 5]), value="codes"),
    "cosmos_dv": Case(lambda d: FSQ([8, 8, 8, 5, 5, 5]), value="codes"),
    "vidtok_fsq_causal": Case(lambda d: FSQ([8, 8, 5, 5, 4, 4]), value="z_quantized"),
    "vidtok_fsq_causal_v1_1": Case(lambda d: FSQ([8, 8, 5, 5, 4, 4]), value="z_quantized"),
}


def made(case: Case, folder: Path, channels: int) -> Quantizer:
    if not isinstance(case.layout, str):
        return case.layout(channels).eval()
    return originals.load(case.layout, load_file(folder / "weights.safetensors"), case.prefix)


def ordered(tokens: Tensor, case: Case, like: Tensor) -> Tensor:
    """Tokens as (B, K, *S)."""
    if case.first == "codebook":
        return tokens.movedim(0, 1)
    if case.first == "last":
        return tokens.movedim(-1, 1)
    return tokens.reshape(like.shape)


@pytest.mark.parametrize("name", CASES)
def test_equal_codes_and_vectors(name: str) -> None:
    folder, case = PARITY / name, CASES[name]
    if not folder.is_dir():
        pytest.skip(f"no parity fixture {folder} (set CODECZOO_PARITY)")
    io = load_file(folder / "io.safetensors")
    z = io[case.z]
    quantizer = made(case, folder, z.shape[1])
    codes = quantizer.encode(z)
    expected = ordered(io[case.tokens], case, codes)
    margin = io[case.margin]
    margin = ordered(margin, case, codes) if margin.numel() == codes.numel() else margin[:, None]  # or one for all K
    unsure = (margin <= 1e-4).expand(codes.shape).cummax(1).values  # a near tie changes what later layers see
    assert not ((codes != expected) & ~unsure).any() and unsure.float().mean() < 0.02
    if case.value:
        value = quantizer.decode(expected)
        torch.testing.assert_close(value, io[case.value].reshape(value.shape), atol=5e-5, rtol=1e-5)


def fixture(name: str) -> dict[str, Tensor]:
    if not (PARITY / name).is_dir():
        pytest.skip(f"no parity fixture {PARITY / name} (set CODECZOO_PARITY)")
    return load_file(PARITY / name / "io.safetensors")


@pytest.mark.parametrize(("bits", "end"), [(4, 4.0), (6, 5.0)])
def test_tokenbridge(bits: int, end: float) -> None:
    io, name = fixture("tokenbridge"), f"b{bits}_r{end}"
    z = io["latents_norm"]
    quantizer = Dimensionwise(z.shape[1], 2**bits, -end, end)
    assert torch.equal(quantizer.encode(z), io[f"tokens_{name}"])
    torch.testing.assert_close(quantizer.decode(io[f"tokens_{name}"]), io[f"dequant_{name}"], atol=1e-5, rtol=0)
    probe, margin = io[f"probe_x_{name}"], io[f"probe_margin_{name}"]
    codes = Dimensionwise(1, 2**bits, -end, end).encode(probe[None, None])[0, 0]
    assert not ((codes != io[f"probe_tokens_{name}"]) & (margin > 1e-5)).any()


def test_flextok() -> None:
    """Whose latents have channels last."""
    io, quantizer = fixture("flextok"), FSQ([8, 8, 8, 5, 5, 5])
    assert torch.equal(quantizer.encode(io["z"].movedim(-1, 1))[:, 0], io["tokens"])
    assert torch.equal(quantizer.decode(io["tokens"][:, None]).movedim(1, -1), io["quantized"])


@pytest.mark.parametrize(
    ("name", "groups", "parts"),
    [
        ("open_magvit2", (6, 4), ("tokens_pre", "tokens_post")),
        ("wetok", (7, 5), ("tokens_gfq_0", "tokens_gfq_1")),
    ],
)
def test_bits_of_unequal_groups(name: str, groups: tuple[int, ...], parts: tuple[str, ...]) -> None:
    io = fixture(name)
    codes = LFQ(sum(groups), groups, order="little").encode(io["z"])
    assert torch.equal(codes, torch.stack([io[part] for part in parts], 1))


def test_tokenflow() -> None:
    io, state = fixture("tokenflow"), load_file(PARITY / "tokenflow" / "weights.safetensors")
    tables = [state[f"quantize.embedding_{part}.weight"] for part in ("vqkd", "vqgan")]
    one = SharedMapping(len(tables[0]), *(table.shape[1] for table in tables))
    with torch.no_grad():
        one.codebook.copy_(torch.cat(tables, 1))
    scales = [(n, n) for n in (1, 2, 4, 6)]
    quantizer = MultiScale([one], scales, Bicubic()).eval()
    streams = quantizer.encode(io["z"])
    codes = torch.cat([stream.flatten(1) for stream in streams], 1)
    unsure = (io["margin"] <= 1e-4).cummax(1).values
    assert not ((codes != io["tokens"]) & ~unsure).any() and not unsure.all()
    pieces = io["tokens"].split([h * w for h, w in scales], 1)
    expected = tuple(piece.view(-1, 1, *scale) for piece, scale in zip(pieces, scales, strict=True))
    torch.testing.assert_close(quantizer.decode(expected), io["quant"], atol=5e-5, rtol=1e-4)


# --- vector-quantize-pytorch itself -----------------------------------------------------------------------------------

PEERS = {
    "vector_quantize_pytorch": ("VectorQuantize", {"dim": 8, "codebook_size": 40}),
    "projected": ("VectorQuantize", {"dim": 12, "codebook_size": 40, "codebook_dim": 8}),
    "vector_quantize_pytorch_cosine": ("VectorQuantize", {"dim": 8, "codebook_size": 40, "use_cosine_sim": True}),
    "vector_quantize_pytorch_residual": ("ResidualVQ", {"dim": 8, "codebook_size": 40, "num_quantizers": 3}),
    "projected_residual": ("ResidualVQ", {"dim": 12, "codebook_dim": 8, "codebook_size": 40, "num_quantizers": 3}),
    "trained": ("VectorQuantize", {"dim": 8, "codebook_size": 40, "kmeans_init": True}),
}
LAYOUT_OF = {
    "projected": "vector_quantize_pytorch",
    "projected_residual": "vector_quantize_pytorch_residual",
    "trained": "vector_quantize_pytorch",
}


@pytest.mark.parametrize("name", PEERS)
def test_vector_quantize_pytorch(name: str) -> None:
    library = pytest.importorskip("vector_quantize_pytorch")
    torch.manual_seed(0)
    kind, arguments = PEERS[name]
    theirs = getattr(library, kind)(**arguments)
    z = torch.randn(3, 50, arguments["dim"])
    for _ in range(3):  # so that the moving averages say something
        theirs.train()(z)
    expected, index = theirs.eval()(z)[:2]
    ours = originals.load(LAYOUT_OF.get(name, name), {f"x.{k}": v for k, v in theirs.state_dict().items()}, "x.")
    codes = ours.encode(z.movedim(-1, 1))
    assert torch.equal(codes, index.reshape(3, 50, -1).movedim(-1, 1))
    torch.testing.assert_close(ours.decode(codes).movedim(1, -1), expected, atol=1e-5, rtol=1e-5)


def test_what_is_no_such_state_is_refused() -> None:
    with pytest.raises(InputError, match=r"no layout .encodek.*encodec"):
        originals.load("encodek", {})
    with pytest.raises(WeightsError, match=r"encodec: no such quantizer below .q."):
        originals.load("encodec", {"vq.layers.0._codebook.embed": torch.zeros(4, 2)}, "q.")
    layer = {"embed": torch.zeros(4, 2), "embed_avg": torch.zeros(4, 2), "cluster_size": torch.ones(4)}
    state = {f"vq.layers.0._codebook.{key}": value for key, value in layer.items()}
    originals.load("encodec", state)
    with pytest.raises(WeightsError, match="which this codec has not"):
        originals.load("encodec", state | {"vq.layers.0.odd": torch.zeros(1)})
    del state["vq.layers.0._codebook.embed_avg"]
    with pytest.raises(WeightsError, match=r"lack 1 tensors.*sums"):
        originals.load("encodec", state)
