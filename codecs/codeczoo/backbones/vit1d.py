"""Vision transformers between an image and a one-dimensional sequence of latent tokens.

Source: TiTok, "An Image is Worth 32 Tokens for Reconstruction and Generation" (arXiv 2406.07550) and
github.com/bytedance/1d-tokenizer.
"""

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from codeczoo.core.errors import ConfigError, InputError, nearest
from codeczoo.nn.posemb import sincos_grid
from codeczoo.nn.transformer import Transformer

PLACES = ("random", "grid")  # of patches and latents at the start


def _parameter(*shape: int, width: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape) * width**-0.5)


def _init_weights(network: nn.Module, std: float) -> None:
    """Truncated normal weights and zero biases; norms start as the identity."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.trunc_normal_(module.weight, std=std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def grid_side(image_size: int, patch: int) -> int:
    """Patches along one side. Raises ConfigError when they do not fit."""
    if image_size % patch:
        raise ConfigError(f"patch {patch} does not divide image_size {image_size}")
    return image_size // patch


def _start(network: "Encoder1D | Decoder1D", side: int, places: str) -> None:
    """For "grid" begins with sines and cosines for the places of a grid, and attention to what is in the same place.

    The latents' places are the cells of a quadtree, the picture first, then its quarters, and so on in random order;
    the embedding of a cell is the mean of those that it covers. Ours; queries that begin as keys are those of "mimetic
    initialization" (arXiv 2305.09828). From random places, all latents begin as means of all patches, and a small
    network takes thousands of steps to tell them apart.

    Raises ConfigError for places that are none of PLACES.
    """
    if places not in PLACES:
        raise ConfigError(f"places: no '{places}'; {nearest(places, PLACES)}")
    if places == "random":
        return
    grid = sincos_grid(side, side, network.positional_embedding.shape[1], period=side)  # (side^2, width)
    cells, across, order = grid[:0], 1, torch.Generator().manual_seed(0)
    while len(cells) < len(network.latent_positional_embedding):
        level = F.adaptive_avg_pool2d(rearrange(grid, "(h w) c -> c h w", h=side), across).flatten(1).T
        cells = torch.cat([cells, level[torch.randperm(len(level), generator=order)]])
        across = min(2 * across, side)
    with torch.no_grad():
        network.positional_embedding[1:] = grid
        network.latent_positional_embedding.copy_(cells[: len(network.latent_positional_embedding)])
    network.transformer.look_at_the_alike()


class Encoder1D(nn.Module):
    """Image to N latent vectors: learned latent tokens read the patches through full attention.

    Args:
        image_size: side of the square image, pixels.
        patch: side of a patch, pixels.
        width: transformer channels.
        depth: transformer blocks.
        heads: attention heads.
        n_tokens: N, latent tokens.
        dim: D, channels of a latent.
        init_std: of the weights at the start. The authors' 0.02 suits widths of 512 and more; in a narrow network the
            signal dies out on its way with it, and width ** -0.5 trains.
        places: where patches and latents begin: "random", as the authors', or "grid": in places of a grid, looking at
            what is near them, which trains in far fewer steps.
        scrambled_reshape_bug: the published two-stage TiTok and One-D-Piece checkpoints read the (N, width) output as
            (width, N) without transposing it, so that a "token" is a slice of channels over all latents. Only for them.
    """

    def __init__(
        self, image_size: int, patch: int, width: int, depth: int, heads: int, n_tokens: int, dim: int,
        init_std: float = 0.02, scrambled_reshape_bug: bool = False, places: str = "random",
    ) -> None:
        super().__init__()
        self.image_size, self.patch, self.n_tokens, self.dim = image_size, patch, n_tokens, dim
        self.scrambled_reshape_bug = scrambled_reshape_bug
        self.n_patches = grid_side(image_size, patch) ** 2
        self.patch_embed = nn.Conv2d(3, width, patch, patch)
        self.class_embedding = _parameter(1, width, width=width)
        self.positional_embedding = _parameter(self.n_patches + 1, width, width=width)
        self.latent_tokens = _parameter(n_tokens, width, width=width)
        self.latent_positional_embedding = _parameter(n_tokens, width, width=width)
        self.transformer = Transformer(width, depth, heads)
        self.project = nn.Linear(width, dim)
        _init_weights(self, init_std)
        with torch.no_grad():  # as if x were centred: else the mean grey drowns the picture. Differs from the authors.
            assert self.patch_embed.bias is not None
            self.patch_embed.bias.sub_(self.patch_embed.weight.sum((1, 2, 3)) / 2)
        _start(self, grid_side(image_size, patch), places)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, 3, H, W) in [0, 1] to z (B, D, N)."""
        patches = self.patch_embed(x).flatten(2).transpose(1, 2)  # (B, h*w, width)
        b = patches.shape[0]
        patches = torch.cat([self.class_embedding.expand(b, 1, -1).to(patches.dtype), patches], 1)
        patches = patches + self.positional_embedding  # (B, 1+h*w, width)
        latents = (self.latent_tokens + self.latent_positional_embedding).expand(b, -1, -1)  # (B, N, width)
        sequence = torch.cat([patches, latents.to(patches.dtype)], 1)
        y = self.transformer(sequence, keep=slice(self.n_patches + 1, None))  # (B, N, width)
        if self.scrambled_reshape_bug:
            y = y.reshape(b, -1, self.n_tokens).transpose(1, 2)  # (B, N, width)
        return self.project(y).transpose(1, 2)  # (B, D, N)


class Decoder1D(nn.Module):
    """A prefix of the N latent vectors to a grid of features: mask tokens read the latents through full attention.

    Args: as Encoder1D; `patch` is the side of one feature in pixels.
    """

    def __init__(
        self, image_size: int, patch: int, width: int, depth: int, heads: int, n_tokens: int, dim: int,
        init_std: float = 0.02, places: str = "random",
    ) -> None:
        super().__init__()
        self.image_size, self.patch, self.n_tokens, self.width = image_size, patch, n_tokens, width
        self.side = grid_side(image_size, patch)
        self.embed = nn.Linear(dim, width)
        self.class_embedding = _parameter(1, width, width=width)
        self.positional_embedding = _parameter(self.side**2 + 1, width, width=width)
        self.mask_token = _parameter(1, 1, width, width=width)
        self.latent_positional_embedding = _parameter(n_tokens, width, width=width)
        self.transformer = Transformer(width, depth, heads)
        _init_weights(self, init_std)
        _start(self, self.side, places)

    def forward(self, z: Tensor, valid: Tensor | None = None, condition: Tensor | None = None) -> Tensor:
        """Features of the image.

        Args:
            z: (B, D, n), n <= N.
            valid: bool (B, n), False for latents that are not there; None when all are.
            condition: (B, M, width), further tokens to look at.

        Shapes: gives (B, width, h, w).
        """
        b, _, n = z.shape
        if n > self.n_tokens:
            raise InputError(f"decoder has {self.n_tokens} latent positions, got {n}")
        latents = self.embed(z.transpose(1, 2)) + self.latent_positional_embedding[:n]  # (B, n, width)
        masks = torch.cat([self.class_embedding[None], self.mask_token.expand(1, self.side**2, -1)], 1)
        grid = (masks + self.positional_embedding).expand(b, -1, -1).to(latents.dtype)  # (B, 1+h*w, width)
        parts = [grid, latents] if condition is None else [grid, latents, condition]
        sequence = torch.cat(parts, 1)
        attend = None
        if valid is not None:
            seen = valid.new_ones(b, sequence.shape[1])
            seen[:, grid.shape[1] : grid.shape[1] + n] = valid
            attend = seen[:, None, None]  # (B, 1, 1, L)
        y = self.transformer(sequence, attend, keep=slice(1, grid.shape[1]))  # (B, h*w, width)
        return rearrange(y, "b (h w) c -> b c h w", h=self.side)
