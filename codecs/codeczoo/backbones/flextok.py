"""FlexTok's two transformers: registers that read a grid of latents, and a flow that paints one from them.

Source: FlexTok (arXiv 2502.13967); REPA (arXiv 2410.06940).
Differs: registers that hold one and the same learned vector (masked ones; all, where the tokens are left out) stay the
same in every layer, as nothing tells them apart, so one is computed that counts as many. Of each last layer only what
is read is computed. All times of a solution are embedded at once.
"""

from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from codeczoo.core.errors import ConfigError, InputError
from codeczoo.nn.adaln import VECTORS, Modulation, Stack, changed, halves, norm
from codeczoo.nn.linear import linear
from codeczoo.nn.posemb import sincos_grid, sincos_time
from codeczoo.nn.registers import CausalRegisters, Everyone

TIME_WIDTH, TIME_PERIOD = 256, 256.0  # the authors' formula has the width where others have a period of 10000


INIT_STD = 0.02  # of learned vectors, as published


def _token(std: float, *shape: int) -> nn.Parameter:
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(*shape), std=std, a=-2 * std, b=2 * std))


def _from_zero(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class Patches(nn.Module):
    """A grid of latents as a sequence of patches that know where they are.

    Args:
        channels: of the latents.
        side: patches along one side.
        patch: latents along a patch.
        width: channels of the sequence.
    """

    positions: Tensor

    def __init__(self, channels: int, side: int, patch: int, width: int) -> None:
        super().__init__()
        self.patch, self.shape = patch, (channels, side * patch, side * patch)
        self.embed = nn.Linear(channels * patch**2, width)
        nn.init.xavier_uniform_(self.embed.weight)
        nn.init.zeros_(self.embed.bias)
        self.register_buffer("positions", sincos_grid(side, side, width))

    def forward(self, latents: Tensor) -> Tensor:
        """latents (B, c, h, w) to (B, side * side, width). Raises InputError for another shape."""
        if latents.shape[1:] != self.shape:
            raise InputError(f"latents must be (B, {', '.join(map(str, self.shape))}), got {tuple(latents.shape)}")
        cut = rearrange(latents, "b c (h p) (w q) -> b (h w) (p q c)", p=self.patch, q=self.patch)
        return linear(self.embed, cut) + self.positions


class RegisterEncoder(Stack):
    """A grid of latents to N vectors: register i reads the patches and the registers before it.

    Args:
        channels: of the latents.
        side: patches along one side.
        patch: latents along a patch.
        width: transformer channels.
        depth: transformer blocks.
        heads: attention heads.
        n_tokens: N, registers.
        dim: D, channels of a vector.
        init_std: of the registers at the start.
    """

    def __init__(
        self, channels: int, side: int, patch: int, width: int, depth: int, heads: int, n_tokens: int, dim: int,
        init_std: float = INIT_STD,
    ) -> None:
        super().__init__(width, depth, heads)
        self.patches = Patches(channels, side, patch, width)
        self.n_tokens, self.dim = n_tokens, dim
        self.registers = _token(init_std, n_tokens, width)
        self.project = _from_zero(width, dim)

    def forward(self, latents: Tensor, n: int | None = None) -> Tensor:
        """latents (B, c, h, w) to z (B, D, n), float32: the first n of the N vectors (None: all)."""
        patches = self.patches(latents)  # (B, P, width)
        registers = self.registers[:n].expand(len(patches), -1, -1)  # (B, n, width)
        cut = patches.shape[1]
        attend = CausalRegisters(cut, registers.shape[1], patches.device)
        x = torch.cat([patches, registers.to(patches.dtype)], 1)
        for i in range(len(self.blocks)):
            x = self.step(i, x, attend, keep=slice(cut, None))
        with torch.autocast(x.device.type, enabled=False):  # what is rounded next
            return linear(self.project, norm(x.float())).transpose(1, 2)  # (B, D, n)


class Told(NamedTuple):
    """What the flow goes by.

    Args:
        registers: (B, m, width).
        last: how many equal registers the last one stands for.
    """

    registers: Tensor
    last: int


class Prediction(NamedTuple):
    """What the flow gives in training.

    Args:
        velocity: (B, c, h, w).
        features: (B, teacher's channels, side, side) where there is an Alignment, else None.
    """

    velocity: Tensor
    features: Tensor | None


class Alignment(nn.Module):
    """Patches inside the flow to the features that a teacher sees in the picture (REPA).

    Args:
        width: of the flow.
        dim: channels of the teacher's features.
        layer: blocks that the patches have been through.
        hidden: channels inside.
    """

    def __init__(self, width: int, dim: int, layer: int, hidden: int = 2048) -> None:
        super().__init__()
        self.width, self.layer = width, layer
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, dim)
        )

    def forward(self, patches: Tensor) -> Tensor:
        """patches (B, side * side, width) to (B, dim, side, side)."""
        return rearrange(self.mlp(patches), "b (h w) c -> b c h w", h=round(patches.shape[1] ** 0.5))


class FlowDecoder(Stack):
    """The velocity of noised latents, told by registers.

    Args:
        channels, side, patch, width, depth, heads, n_tokens: see RegisterEncoder.
        dim: D, channels of the quantized vectors.
        time_scale: what times are multiplied by before they are embedded.
        align: None: no features for a teacher.
        init_std: of the registers' positions at the start, which tell tokens apart.
    """

    def __init__(
        self, channels: int, side: int, patch: int, width: int, depth: int, heads: int, n_tokens: int, dim: int,
        time_scale: float = 1000.0, align: Alignment | None = None, init_std: float = INIT_STD,
    ) -> None:
        super().__init__(width, depth, heads)
        if align is not None and not (1 <= align.layer < depth and align.width == width):
            found = f"{align.layer} and {align.width}"
            raise ConfigError(f"align: layer must be within 1..{depth - 1} and width {width}, got {found}")
        self.n_tokens, self.dim, self.time_scale, self.align = n_tokens, dim, time_scale, align
        self.embed = nn.Linear(dim, width)
        self.register_positions = _token(init_std, n_tokens, width)
        self.mask_token, self.null_token = _token(init_std, width), _token(init_std, width)
        self.patches = Patches(channels, side, patch, width)
        self.time = nn.Sequential(nn.Linear(TIME_WIDTH, width), nn.SiLU(), nn.Linear(width, width))
        self.modulations = nn.ModuleList(Modulation(width, VECTORS) for _ in range(depth))
        self.last_modulation = Modulation(width, 2)
        self.project = _from_zero(width, channels * patch**2)

    def told(self, z: Tensor, lengths: Tensor | None = None, dropped: Tensor | None = None) -> Told:
        """What the flow goes by where there are tokens.

        Args:
            z: (B, D, n), n <= N.
            lengths: int64 (B,), how many of them count; the others are masked. None: all.
            dropped: bool (B,), samples that are told nothing.
        """
        b, _, n = z.shape
        if n > self.n_tokens:
            raise InputError(f"decoder has {self.n_tokens} latent positions, got {n}")
        registers = linear(self.embed, z.transpose(1, 2)) + self.register_positions[:n]  # (B, n, width)
        if lengths is not None:
            there = torch.arange(n, device=z.device) < lengths[:, None]  # (B, n)
            registers = torch.where(there[:, :, None], registers, self.mask_token)
        if n < self.n_tokens:
            registers = torch.cat([registers, self.mask_token.expand(b, 1, -1).to(registers.dtype)], 1)
        if dropped is not None:
            registers = torch.where(dropped[:, None, None], self.null_token, registers)
        return Told(registers, max(1, self.n_tokens - n))

    def told_nothing(self, batch: int) -> Told:
        """What the flow goes by where the tokens are left out."""
        return Told(self.null_token.expand(batch, 1, -1), self.n_tokens)

    def at(self, t: Tensor) -> list[Tensor]:
        """What depends on the time alone: t (T,) to what each block and the head get, (T, vectors, width) each."""
        features = sincos_time(t * self.time_scale, TIME_WIDTH, TIME_PERIOD)
        embedded = self.time(features)  # (T, width)
        return [modulation(embedded) for modulation in (*self.modulations, self.last_modulation)]

    def forward(self, x_t: Tensor, t: Tensor, told: Told) -> Prediction:
        """Noised latents (B, c, h, w) at times t (B,), each its own."""
        return self.predict(x_t, self.at(t), told, self.align)

    def velocity(self, x_t: Tensor, time: list[Tensor], told: Told) -> Tensor:
        """Noised latents (B, c, h, w) at one time, `[values[i] for values in self.at(t)]`, to their velocity."""
        return self.predict(x_t, time, told, None).velocity

    def predict(self, x_t: Tensor, time: list[Tensor], told: Told, align: Alignment | None) -> Prediction:
        """Both of the above."""
        patches, features = self.patches(x_t), None  # (B, P, width)
        cut, m = patches.shape[1], told.registers.shape[1]
        attend = Everyone(cut + m, told.last, x_t.device)
        x = torch.cat([patches, told.registers.to(patches.dtype)], 1)
        for i, values in enumerate(time[:-1]):
            x = self.step(i, x, attend, slice(cut), halves(values, cut))
            if align is not None and i + 1 == align.layer:
                features = align(x[:, :cut])
        shift, scale = time[-1].unbind(-2) if time[-1].ndim == 2 else time[-1][:, :, None].unbind(1)
        y = linear(self.project, changed(x, shift, scale))  # (B, P, c p p)
        p, side = self.patches.patch, self.patches.shape[1] // self.patches.patch
        return Prediction(rearrange(y, "b (h w) (p q c) -> b c (h p) (w q)", h=side, p=p, q=p), features)
