"""Affine maps that run through oneDNN where no gradient is wanted on a CPU.

There torch gives float32 products to MKL, which took 1.2 to 1.4 times as long on an AMD EPYC (tools/bench_codec.py),
and adds bias and GELU in passes of their own.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def once(x: Tensor) -> Tensor:
    """x as autocast would give it to each of several layers, changed once."""
    device = x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x


def affine(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x @ weight.T + bias; x (..., in), weight (out, in), bias (out,) to (..., out)."""
    if _through_onednn(x):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return F.linear(x, weight, bias)


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """layer(x); x (..., in) to (..., out)."""
    return affine(x, layer.weight, layer.bias)


def linear_gelu(layer: nn.Linear, x: Tensor) -> Tensor:
    """gelu(layer(x)), the exact GELU; x (..., in) to (..., out)."""
    if _through_onednn(x):
        return torch.ops.mkldnn._linear_pointwise(x, layer.weight, layer.bias, "gelu", [], "none")
    return F.gelu(layer(x))


def linear_silu_gated(gate: nn.Linear, value: nn.Linear, x: Tensor) -> Tensor:
    """silu(gate(x)) * value(x), of SwiGLU; x (..., in) to (..., out). The layers have no biases."""
    if _through_onednn(x):
        open_ = torch.ops.mkldnn._linear_pointwise(x, gate.weight, None, "swish", [], "")
        return torch.ops.mkldnn._linear_pointwise.binary(x, open_, value.weight, None, "mul")
    return F.silu(gate(x)).mul_(value(x))


def _through_onednn(x: Tensor) -> bool:
    """Whether this is plain float32 inference on a CPU; the fused operation has neither gradient nor autocast."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        return False
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    return bool(torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled)
