"""Quantizers out of other projects' state dicts. The table of layouts is in docs/quantizers.md.

Quantizers without weights (FSQ, LFQ, BSQ, GQ) need no file: build them with the arguments in that table.
"""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from codeczoo.core.base import Quantizer
from codeczoo.core.errors import InputError, WeightsError, nearest
from codeczoo.io.weights import Renames, load_original, rename
from codeczoo.quantizers.ibq import IBQ
from codeczoo.quantizers.projected import AngularVQ, Projected
from codeczoo.quantizers.residual import Residual
from codeczoo.quantizers.split import Split
from codeczoo.quantizers.vq import EMAVQ, VQ, CosineEMAVQ, CosineVQ

State = dict[str, Tensor]


class Layout(NamedTuple):
    """How one project names a quantizer's tensors.

    Args:
        build: makes the quantizer from the tensors, already under our names.
        renames: (pattern, replacement) from their names to ours.
        unused: patterns of names that we do not need.
        prepare: changes tensors before their names.
    """

    build: Callable[[State], Quantizer]
    renames: Renames
    unused: tuple[str, ...] = ()
    prepare: Callable[[State], State] = dict


def load(layout: str, state: Mapping[str, Tensor], prefix: str = "") -> Quantizer:
    """The quantizer in a project's state dict, in evaluation mode; its sizes follow from the tensors.

    Args:
        layout: see LAYOUTS.
        state: tensors by the project's names, e.g. of a whole codec.
        prefix: what the names of the quantizer's tensors begin with there, e.g. "quantizer."; others are left alone.

    Raises:
        InputError: unknown layout. WeightsError: tensors are missing or left over.
    """
    if layout not in LAYOUTS:
        raise InputError(f"no layout '{layout}' of quantizers; {nearest(layout, LAYOUTS)}")
    build, renames, unused, prepare = LAYOUTS[layout]
    own = prepare({key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)})
    try:
        quantizer = build({rename(key, renames): value for key, value in own.items()})
    except (KeyError, ValueError) as error:
        raise WeightsError(f"{layout}: no such quantizer below '{prefix}' ({error})") from None
    load_original(quantizer, own, renames, unused)
    return quantizer.eval()


def within(layout: str, state: Mapping[str, Tensor], prefix: str = "quantizer.") -> State:
    """A whole codec's tensors, those of its quantizer below `prefix` as ours are; what we do not need is left out."""
    _, renames, unused, prepare = LAYOUTS[layout]
    own = prepare({key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)})
    others = {key: value for key, value in state.items() if not key.startswith(prefix)}
    needed = {key: value for key, value in own.items() if not any(re.search(pattern, key) for pattern in unused)}
    return others | {prefix + rename(key, renames): value for key, value in needed.items()}


# --- one table -------------------------------------------------------------------------------------------------------


def _vq(state: State) -> Quantizer:
    return VQ(*state["codebook"].shape)


def _cosine_vq(state: State) -> Quantizer:
    return CosineVQ(*state["codebook"].shape)


def _ibq(state: State) -> Quantizer:
    return IBQ(*state["codebook"].shape)


# --- moving averages, alone and in layers ----------------------------------------------------------------------------


def _ema_vq(state: State) -> Quantizer:
    return _projected(EMAVQ(*state[_codebooks(state)[0]].shape), state, "")


def _cosine_ema_vq(state: State) -> Quantizer:
    return _projected(CosineEMAVQ(*state[_codebooks(state)[0]].shape), state, "")


def _ema_rvq(state: State) -> Quantizer:
    layers = [EMAVQ(*state[key].shape) for key in _codebooks(state)]
    return _projected(Residual(layers), state, "")


def _codebooks(state: State, below: str = "") -> list[str]:
    """Names of the tables, in the order of their layers. Raises ValueError when there is none."""
    found = [key for key in state if key.startswith(below) and key.endswith("codebook")]
    if not found:
        raise ValueError("no codebook")
    return sorted(found, key=lambda key: [int(n) for n in re.findall(r"\d+", key)])


def _projected(inner: Residual | EMAVQ, state: State, below: str) -> Projected | Residual | EMAVQ:
    """`inner`, between projections where the state has them."""
    weight = state.get(f"{below}in_proj.weight")
    return inner if weight is None else Projected(inner, weight.shape[1], bias=f"{below}in_proj.bias" in state)


def _without_heads(state: State) -> State:
    """vector-quantize-pytorch keeps tables as (heads, V, D); one head is what we read."""
    out = {}
    for key, value in state.items():
        if "_codebook." in key and key.endswith(("embed", "embed_avg", "cluster_size")):
            if len(value) != 1:
                raise WeightsError(f"{key} has {len(value)} heads; make a Grouped quantizer of one for each")
            value = value[0]
        out[key] = value
    return {_inner(key, out): value for key, value in out.items()}


def _inner(key: str, state: State) -> str:
    """Names below a projection say so."""
    return f"layers.0.{key}" if "project_in.weight" in state and not key.startswith("project_") else key


# --- moshi and DAC ---------------------------------------------------------------------------------------------------


def _divided(state: State) -> State:
    """moshi keeps sums and usage; an entry is their quotient."""
    out = dict(state)
    for key in state:
        if key.endswith(("embedding_sum", "embed_sum")):
            base = key.rpartition(".")[0]
            out[f"{base}.embed"] = state[key] / state[f"{base}.cluster_usage"].clamp(min=1e-5)[:, None]
    return out


def _split_rvq(state: State) -> Quantizer:
    halves = []
    for i in range(2):
        below = f"layers.{i}."
        halves.append(_projected(Residual([EMAVQ(*state[k].shape) for k in _codebooks(state, below)]), state, below))
    return Split(halves)


def _folded(state: State) -> State:
    """Weights without their norm: g * v / |v|; old and new names."""
    out = {}
    for key, value in state.items():
        if key.endswith(("weight_v", "parametrizations.weight.original1")):
            old = key.endswith("weight_v")
            base = key.removesuffix("weight_v" if old else "parametrizations.weight.original1")
            size = state[base + ("weight_g" if old else "parametrizations.weight.original0")]
            out[f"{base}weight"] = torch._weight_norm(value, size, 0)
        elif not key.endswith(("weight_g", "parametrizations.weight.original0")):
            out[key] = value
    return out


def _factorised_rvq(state: State) -> Quantizer:
    layers = []
    for key in _codebooks(state):
        below = key.removesuffix("layers.0.codebook")
        layers.append(Projected(AngularVQ(*state[key].shape), state[f"{below}in_proj.weight"].shape[1]))
    return Residual(layers)


_EMA = (
    (r"(?:_codebook|codebook)\.embed_avg$", "sums"),
    (r"(?:_codebook|codebook)\.embed$", "codebook"),
    (r"(?:_codebook|codebook)\.cluster_size$", "counts"),
)
_MOSHI = (
    (r"(?:_codebook|codebook)\.(?:embedding|embed)_sum$", "sums"),
    (r"(?:_codebook|codebook)\.embed$", "codebook"),
    (r"(?:_codebook|codebook)\.cluster_usage$", "counts"),
    (r"input_proj\.", "in_proj."),
    (r"output_proj\.", "out_proj."),
)
_PROJECT = ((r"project_in\.", "in_proj."), (r"project_out\.", "out_proj."))
_TABLE = ((r"^(?:embedding\.|embed\.)?weight$", "codebook"),)
_RVQ = (*_EMA, (r"^vq\.", ""))
_VQP_UNUSED = (r"\.initted$", r"^zero$", r"\.(?:batch_mean|batch_variance|codebook_mean|codebook_variance).*$")

LAYOUTS: dict[str, Layout] = {
    "taming": Layout(_vq, _TABLE),
    "llamagen": Layout(_cosine_vq, _TABLE, (r"^codebook_used$",)),
    "ibq": Layout(_ibq, _TABLE),
    "encodec": Layout(_ema_rvq, _RVQ, (r"\.inited$",)),
    "vector_quantize_pytorch": Layout(_ema_vq, (*_EMA, *_PROJECT), _VQP_UNUSED, _without_heads),
    "vector_quantize_pytorch_cosine": Layout(_cosine_ema_vq, (*_EMA, *_PROJECT), _VQP_UNUSED, _without_heads),
    "vector_quantize_pytorch_residual": Layout(_ema_rvq, (*_EMA, *_PROJECT), _VQP_UNUSED, _without_heads),
    "moshi": Layout(
        _split_rvq,
        (
            *_MOSHI,
            (r"^rvq_first\.vq\.|^semantic_residual_vector_quantizer\.(?=layers)", "layers.0.layers.0."),
            (r"^rvq_rest\.vq\.|^acoustic_residual_vector_quantizer\.(?=layers)", "layers.1.layers.0."),
            (r"^(?:rvq_first|semantic_residual_vector_quantizer)\.", "layers.0."),
            (r"^(?:rvq_rest|acoustic_residual_vector_quantizer)\.", "layers.1."),
        ),
        (r"initialized$",),
        _divided,
    ),
    "dac": Layout(
        _factorised_rvq,
        ((r"^quantizers\.(\d+)\.codebook\.weight$", r"layers.\1.layers.0.codebook"), (r"^quantizers\.", "layers.")),
        prepare=_folded,
    ),
}
