"""Attention of video, one head around the identity: within frames, or back in time at every place by itself."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codeczoo.core.errors import ConfigError
from codeczoo.nn.causal_transformer import window_mask
from codeczoo.nn.conv3d import from_frames, laid_out, to_frames
from codeczoo.nn.stream import Layer


class _Attention(Layer):
    """What both kinds have.

    Args:
        dim: channels.
        norm: what comes first.
    """

    def __init__(self, dim: int, norm: Layer) -> None:
        super().__init__()
        self.norm = norm
        self.q, self.k, self.v, self.out = (nn.Linear(dim, dim) for _ in range(4))
        for linear in (self.q, self.k, self.v, self.out):
            nn.init.zeros_(linear.bias)


class FrameAttention(_Attention):
    """Attention among all places of a frame.

    Args:
        dim: channels.
        norm: what comes first.
    """

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """x (B, C, T, H, W) to the same shape."""
        if not x.numel():
            return x
        places = to_frames(self.norm(x)).flatten(2).transpose(1, 2)  # (B T, H W, C)
        q, k, v = (layer(places)[:, None] for layer in (self.q, self.k, self.v))  # with heads, or the scores are stored
        y = self.out(F.scaled_dot_product_attention(q, k, v)[:, 0])
        return x + from_frames(y.transpose(1, 2).unflatten(2, x.shape[3:]), len(x), x.shape[2])


@dataclass
class Past:
    """State of attention in time: keys and values of the latest steps, (B, H W, t, C); None before the first."""

    keys: Tensor | None = None
    values: Tensor | None = None


class TimeAttention(_Attention):
    """Attention of every place to itself at this step and at the context - 1 steps before it.

    Args:
        dim: channels.
        norm: what comes first.
        context: steps.

    Raises:
        ConfigError: no context.
    """

    def __init__(self, dim: int, norm: Layer, context: int) -> None:
        super().__init__(dim, norm)
        if context < 1:
            raise ConfigError(f"attention in time: context must be at least 1, got {context}")
        self.context = context

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """x (B, C, T, H, W) to the same shape."""
        return self.step(x, self.begin())

    def begin(self) -> Past:
        """See Layer."""
        return Past()

    def step(self, x: Tensor, state: Past, last: bool = False) -> Tensor:
        """See Layer."""
        if not x.numel():
            return x
        steps = laid_out(self.norm(x)).flatten(3).permute(0, 2, 3, 1)  # (B, T, H W, C)
        q, k, v = (layer(steps).transpose(1, 2) for layer in (self.q, self.k, self.v))  # (B, H W, T, C)
        if state.keys is not None and state.values is not None:
            k, v = torch.cat([state.keys, k], 2), torch.cat([state.values, v], 2)
        kept = max(0, k.shape[2] - self.context + 1)
        state.keys, state.values = k[:, :, kept:].clone(), v[:, :, kept:].clone()  # a view would keep all of it
        y = F.scaled_dot_product_attention(q, k, v, window_mask(q.shape[2], k.shape[2], self.context, x.device))
        return x + self.out(y.transpose(1, 2)).permute(0, 3, 1, 2).unflatten(3, x.shape[3:])
