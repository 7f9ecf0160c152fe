"""Self-supervised vision models as teachers, from local files; nothing is ever downloaded."""

from pathlib import Path

import torch
from torch import Tensor, nn

from codeczoo.losses.teachers import Teacher, given_folder, read_folder

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, that DINOv2 was trained with
HOW = (
    "Get one with `hf download facebook/dinov2-large --local-dir dinov2-large` and give the folder's path as the "
    "teacher's `folder`, or train with objective=flow, without the alignment."
)


class DinoV2(Teacher):
    """The patches of a DINOv2, with or without registers, out of a `transformers` folder.

    Source: REPA (arXiv 2410.06940): the picture is resized (bicubic) to one patch of the teacher for each of the
    codec's; features are those behind the last norm.

    Args:
        folder: config.json and model.safetensors.
        side: patches along a side, which are as many as the codec aligns.

    Raises:
        MissingError: no folder, or `transformers` is not installed.
        WeightsError: the folder cannot be read or is of another kind of model.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, folder: str | Path | None, side: int) -> None:
        path = given_folder(folder, HOW)
        super().__init__()
        self.network = read_folder(path, ("embeddings", "layernorm"), "DINOv2")
        self.side, self.patch = side, int(self.network.config.patch_size)  # type: ignore[union-attr,arg-type]
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, 3, H, W) in [0, 1] to (B, D, side, side)."""
        size = (self.side * self.patch,) * 2
        x = nn.functional.interpolate(x, size, mode="bicubic", antialias=True).clamp(0, 1)
        states = self.network((x - self.mean) / self.std).last_hidden_state  # (B, 1 + registers + side * side, D)
        return states[:, -(self.side**2):].mT.unflatten(2, (self.side, self.side))  # (B, D, side, side)
