"""Teaching a codec what a self-supervised model hears or sees: a codebook of speech, patches inside a flow."""

from abc import abstractmethod

import torch
from torch import Tensor
from torch.nn import functional as F

from codeczoo.core.errors import InputError
from codeczoo.core.types import Reconstruction
from codeczoo.losses.base import Term
from codeczoo.losses.frozen import Frozen
from codeczoo.losses.teachers import Teacher


class Distillation(Term):
    """A term that compares the codec's features with a teacher's.

    Args:
        teacher: hears or sees x; never trained, never saved.
    """

    reads = frozenset({"features"})

    def __init__(self, teacher: Teacher) -> None:
        super().__init__()
        self.teacher = Frozen(teacher)

    def value(self, x: Tensor, reconstruction: Reconstruction) -> Tensor:
        """x and features (B, D, frames) or (B, D, h, w) to a scalar; of frames one of the two may have one more.

        Raises InputError when the teacher's D or grid is another or the frames differ by more than one.
        """
        with torch.no_grad():
            wanted = self.teacher.net(x)
        found = reconstruction.features
        if found is None or not _alike(found.shape, wanted.shape):
            got = None if found is None else tuple(found.shape)
            raise InputError(f"{type(self).__name__}: the teacher gives {tuple(wanted.shape)}, the codec {got}")
        found, wanted = found.flatten(2), wanted.flatten(2)  # the patches of a picture count as frames
        frames = min(found.shape[2], wanted.shape[2])
        return self.compare(wanted[..., :frames], found[..., :frames].float())

    @abstractmethod
    def compare(self, wanted: Tensor, found: Tensor) -> Tensor:
        """The scalar for two float32 (B, D, T)."""


def _alike(found: torch.Size, wanted: torch.Size) -> bool:
    in_time = len(found) == len(wanted) == 3 and found[:2] == wanted[:2] and abs(found[2] - wanted[2]) <= 1
    return in_time or found == wanted


class DimensionDistillation(Distillation):
    """-mean log sigmoid of the cosine, over time, of each of the D dimensions.

    Source: SpeechTokenizer (arXiv 2308.16692) "D-axis", its published recipe.
    """

    def compare(self, wanted: Tensor, found: Tensor) -> Tensor:
        """See Distillation."""
        return -F.logsigmoid(F.cosine_similarity(found, wanted, dim=2)).mean()


class TimeDistillation(Distillation):
    """mean |difference| - similarity mean log sigmoid of the cosine of each frame.

    Source: SpeechTokenizer, trainer/loss.py "t_axis".

    Args:
        similarity: factor of the second part.
    """

    def __init__(self, teacher: Teacher, similarity: float = 1.0) -> None:
        super().__init__(teacher)
        self.similarity = similarity

    def compare(self, wanted: Tensor, found: Tensor) -> Tensor:
        """See Distillation."""
        cosine = F.cosine_similarity(found, wanted, dim=1)
        return F.l1_loss(found, wanted) - self.similarity * F.logsigmoid(cosine).mean()


class CosineDistillation(Distillation):
    """1 - mean cosine of each frame or patch.

    Source: Mimi (arXiv 2410.00037) section 3.3.3, whose weight and teacher's layer are not published; REPA (arXiv
    2410.06940).
    """

    def compare(self, wanted: Tensor, found: Tensor) -> Tensor:
        """See Distillation."""
        return 1 - F.cosine_similarity(found, wanted, dim=1).mean()
