"""TiTok's perceptual loss: the logits of an ImageNet classifier."""

from pathlib import Path

import torch
from torch import Tensor, nn

from codeczoo.core.errors import InputError
from codeczoo.io.weights import load_strict
from codeczoo.losses.base import MediaTerm
from codeczoo.losses.frozen import Frozen, pretrained

HOW = (
    "Get the file with `python -c \"import torch, torchvision; torch.save(torchvision.models.convnext_small("
    "weights='IMAGENET1K_V1').state_dict(), 'convnext_small.pth')\"` and give its path as the term's `weights`, "
    "or train without it: objective=titok_stage2_plain or objective=plain."
)


class ConvNeXtLogits(MediaTerm):
    """Mean squared difference of ConvNeXt-Small's 1000 logits, both pictures resized to 224 and ImageNet-normalised.

    Source: bytedance/1d-tokenizer, modeling/modules/perceptual_loss.py ("convnext_s").
    The original's "lpips-convnext_s-1.0-0.1" (single-stage TiTok, TA-TiTok) is two terms here, LPIPS and this one. It
    returns (1.0 LPIPS + 0.1 ConvNeXt) / 1.1 and its recipes multiply by 1.1, so the weights are LPIPS 1.0 and this 0.1.

    Args:
        weights: local file with torchvision's `convnext_small` state dict (IMAGENET1K_V1). Nothing is downloaded.

    Raises:
        MissingError: the file is not there.
        WeightsError: it is not of that network.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, weights: str | Path | None) -> None:
        super().__init__()
        state = pretrained(weights, "ConvNeXtLogits", HOW)
        from torchvision.models import convnext_small  # 3 s to import, and only this term wants it

        with torch.device("meta"):  # every tensor is loaded, so initialising them would only cost seconds
            network = convnext_small(weights=None)
        network.to_empty(device="cpu")
        load_strict(network, state, str(weights))
        self.network: Frozen[nn.Module] = Frozen(network)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1), persistent=False)

    def compare(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """x, x_hat (B, 3, H, W) in [0, 1] to a scalar."""
        if x.ndim != 4 or x.shape[1] != 3:
            raise InputError(f"ConvNeXtLogits takes (B, 3, H, W), got {tuple(x.shape)}")
        with torch.no_grad():
            wanted = self.logits(x)
        return nn.functional.mse_loss(self.logits(x_hat), wanted)

    def logits(self, x: Tensor) -> Tensor:
        """x (B, 3, H, W) to (B, 1000)."""
        x = nn.functional.interpolate(x, size=(224, 224), mode="bilinear", align_corners=False, antialias=True)
        return self.network.net((x - self.mean) / self.std)
