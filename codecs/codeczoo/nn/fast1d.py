"""Convolutions over time through oneDNN where no gradient is wanted on a CPU (tools/bench_audio.py).

There torch changes the layout of signals and weights at every call. Here weights are packed once, and signals are
"rows": (B, C, T) whose channels lie next to each other in memory, which activations and sums keep as they are.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from codeczoo.nn import fold1d

PIECE = 1 << 16  # numbers that a thread works on at once
LARGE = 1 << 18  # numbers of a signal whose copy takes more time than a second convolution of its ends
MOST = 1 << 23  # numbers of a signal: malloc gives 32 MB and more back at once, and new pages take a third of the time
FEW, SMALL = 512, 1 << 17  # windows, and numbers of a weight, up to which a plain product takes less time


def applies(x: Tensor) -> bool:
    """Whether this is inference on a CPU in float32 or bfloat16."""
    if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.bfloat16) or not x.numel():
        return False
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    if lacks(x):
        return False
    return bool(torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled)


class Kept:
    """What is made of weights, made anew where they have changed. Copies of it are empty."""

    def __init__(self) -> None:
        self._weights: tuple[Tensor, ...] = ()
        self._stamp: tuple[object, ...] = ()
        self._made: Tensor | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()

    def get(self, make: Callable[[], Tensor], kind: object, *weights: Tensor) -> Tensor:
        """What `make` gives; `kind` says what it makes of the weights."""
        now = (kind, *[(id(weight), *stamp(weight)) for weight in weights])  # held, so ids stay theirs
        if self._made is None or self._stamp != now:
            self._made, self._weights, self._stamp = make(), weights, now
        return self._made


class Packed:
    """A convolution whose weight is kept as oneDNN wants it; few windows of a small weight are a plain product."""

    def __init__(self) -> None:
        self._packed, self._taps = Kept(), Kept()

    def conv1d(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int = 1, dilation: int = 1,
        pad: tuple[int, int] = (0, 0), plus: Tensor | None = None,
    ) -> Tensor:
        """As torch's, in autocast's precision, x (B, C, T) to rows (B, C', T').

        Args:
            x: the signals.
            weight: (C', C, kernel).
            bias, stride, dilation: as torch's.
            pad: zeros before and behind x.
            plus: what to add, (B, C', T'); the result may take its place.
        """
        windows = (sum(pad) + x.shape[2] - (weight.shape[2] - 1) * dilation - 1) // stride + 1
        plain = dilation == 1 and not any(pad) and plus is None and precision(x) == torch.float32
        if plain and weight.numel() <= SMALL and 0 < windows * len(x) <= FEW:
            return self._multiply(x, weight, bias, stride, windows)
        more = -(-max(0, pad[1] - pad[0]) // stride)  # windows too many in front: oneDNN pads both ends alike
        y = self._convolve(x, weight, 0, bias, pad[0] + more * stride, stride, dilation, plus)
        return y[:, :, more : more + windows]

    def conv_transpose1d(self, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
        """As torch's, x (B, C, T) to rows (B, C', (T - 1) * stride + kernel); weight (C, C', kernel).

        A convolution whose outputs are `stride` steps each, next to each other.
        """
        repeated = None if bias is None else bias.repeat(stride)
        y = self._convolve(x, weight, stride, repeated, -(-weight.shape[2] // stride) - 1)
        y = y.transpose(1, 2).reshape(len(x), -1, weight.shape[1])  # (B, T' * stride, C')
        return y.transpose(1, 2)[:, :, : (x.shape[2] - 1) * stride + weight.shape[2]]

    def _multiply(self, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, windows: int) -> Tensor:
        taps = self._taps.get(lambda: weight.permute(2, 1, 0).flatten(0, 1).contiguous(), "taps", weight)
        rows = x.transpose(1, 2).contiguous()  # (B, T, C), so a window is so many numbers next to each other
        shape, steps = (len(x), windows, len(taps)), (rows.stride(0), stride * x.shape[1], 1)
        seen = rows.as_strided(shape, steps).reshape(-1, len(taps))  # (B * T', kernel * C)
        y = seen @ taps if bias is None else torch.addmm(bias, seen, taps)
        return y.view(len(x), windows, -1).transpose(1, 2)

    def _convolve(
        self, x: Tensor, weight: Tensor, spread: int, bias: Tensor | None, pad: int, stride: int = 1, dilation: int = 1,
        plus: Tensor | None = None,
    ) -> Tensor:
        dtype = precision(x)
        folded = stride if fold1d.applies(x, weight.shape[2], stride, dilation) else 1
        partly = pad % folded or x.shape[2] % folded  # steps that fold to no whole one would be left out
        if pad and (partly or x.shape[2] < max(stride, dilation)):  # oneDNN crashes where no window sees a step of x
            x, pad = F.pad(x, (pad, pad)), 0
        rows = x.to(dtype).transpose(1, 2).contiguous()  # (B, T, C)
        rows = rows[:, : rows.shape[1] // folded * folded].reshape(len(x), -1, folded * x.shape[1])
        image = _image(rows)
        where = [0, pad // folded], [1, stride // folded], [1, dilation], 1

        def pack() -> Tensor:
            taps = fold1d.spread(weight, spread) if spread else fold1d.fold(weight, folded)
            taps = taps.to(dtype)[:, :, None]
            return torch.ops.mkldnn._reorder_convolution_weight(taps, *where, list(image.shape))

        packed = self._packed.get(pack, dtype, weight)
        bias = None if bias is None else bias.to(dtype)
        if plus is None:
            return torch.ops.mkldnn._convolution_pointwise(image, packed, bias, *where, "none", [], "").squeeze(2)
        total = _image(plus.to(dtype).transpose(1, 2).contiguous())
        add = torch.ops.mkldnn._convolution_pointwise_.binary
        return add(total, image, packed, bias, *where, "add", 1.0, None, [], None).squeeze(2)


def _image(rows: Tensor) -> Tensor:
    """Rows (B, T, C) as pictures (B, C, 1, T)."""
    return rows[:, None].permute(0, 3, 1, 2)


def precision(x: Tensor) -> torch.dtype:
    """In which precision it is computed."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


def lacks(x: Tensor) -> bool:
    """Whether oneDNN raises in this precision on this processor."""
    if x.device.type != "cpu" or precision(x) != torch.bfloat16:
        return False
    return not torch.ops.mkldnn._is_mkldnn_bf16_supported()


def stamp(weight: Tensor) -> tuple[object, ...]:
    """Another one once a tensor has changed."""
    return weight.data_ptr(), None if weight.is_inference() else weight._version, weight.dtype, weight.device


def in_cache(x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """An elementwise function of x (B, C, T), in float32 and so many numbers at once that they stay in the cache.

    Args:
        x: rows, or they are made.
        function: of float32 (n, C), which it may change in place, to the same shape.
    """
    rows = x.transpose(1, 2).contiguous()  # (B, T, C)
    out = torch.empty_like(rows)
    flat, found = rows.view(-1, x.shape[1]), out.view(-1, x.shape[1])
    some = max(1, PIECE * torch.get_num_threads() // x.shape[1])
    for piece, own in zip(flat.split(some), found.split(some), strict=True):
        own.copy_(function(piece.float()))
    return out.transpose(1, 2)


def is_rows(x: Tensor) -> bool:
    """Whether x is (B, C, T) and its channels lie next to each other."""
    return x.ndim == 3 and x.stride(1) == 1 and x.shape[1] > 1


def join(parts: Sequence[Tensor]) -> Tensor:
    """Signals (B, C, t, *S) one after the other; rows stay rows."""
    if not is_rows(parts[-1]):
        return torch.cat(list(parts), 2)
    return torch.cat([part.transpose(1, 2) for part in parts], 1).transpose(1, 2)
