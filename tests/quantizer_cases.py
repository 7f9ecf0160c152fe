"""Every quantizer that the property tests run, by name, and what a case is excused from.

A new class is one line in CASES: a builder of (entries, dim) and, where a property is not meant to hold, its name with
the reason. `ready(name)` gives the quantizer with spread entries, started, in training mode.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import torch
from torch import Tensor

from codeczoo.core.base import Quantizer
from codeczoo.quantizers.dropout import ChosenDepth, PerBatch, UniformDepth
from codeczoo.quantizers.estimators import DiVeQ, Gumbel, Rotation
from codeczoo.quantizers.fsq import FSQ, FactorisedFSQ, SymmetricFSQ
from codeczoo.quantizers.grouped import Grouped
from codeczoo.quantizers.ibq import IBQ, Entropy, Propagation
from codeczoo.quantizers.kmeans import KMeans
from codeczoo.quantizers.lfq import BSQ, GQ, LFQ
from codeczoo.quantizers.penalties import Orthogonality
from codeczoo.quantizers.projected import AngularVQ, Projected
from codeczoo.quantizers.residual import Residual
from codeczoo.quantizers.residual_fsq import ResidualFSQ
from codeczoo.quantizers.residual_lfq import ResidualLFQ
from codeczoo.quantizers.shared_mapping import SharedMapping
from codeczoo.quantizers.simvq import SimVQ
from codeczoo.quantizers.split import Split
from codeczoo.quantizers.tables import TableVQ
from codeczoo.quantizers.upkeep import Anchors, Restart
from codeczoo.quantizers.vq import EMAVQ, VQ, CosineEMAVQ, CosineVQ

V, D = 37, 6
SHAPES = {"1d": (3, D, 11), "2d": (3, D, 4, 5), "3d": (3, D, 2, 3, 4)}
MASKS = ("none", "ragged", "empty row")
LEVELS = (8, 5, 5, 4, 3, 3)
PRECISIONS = ("float32", "bfloat16", "autocast")
TRAINING = {"restart", "anchors", "kmeans", "rotation", "diveq", "gumbel", "uniform", "chosen"}  # act in training only


@dataclass(frozen=True)
class Case:
    """One quantizer.

    Args:
        build: of entries and dim; may ignore the entries.
        excused: properties that it does not claim, with the reason.
    """

    build: Callable[[int, int], Quantizer]
    excused: dict[str, str] = field(default_factory=dict)


GREEDY = {"round trip": "a sum of entries may be nearer to other first entries than to those that it is made of"}
RANDOM = {"random": "training draws random numbers"}
ANCHORED = {"untied": "unused entries move to the same latent: by less than rounding one of them is nearer to the next"}
UNIT = {"gain": "the unit length passes no gradient along the latent", "scale": "length is not kept"}
PRODUCT = {
    "round trip": "a longer entry may have a greater product", "gain": "the gradient goes through probabilities",
}
PROJECTED = {
    "round trip": "the way in does not undo the way out",
    "gain": "gradients go through the projections",
    "commitment": "it is that of the projected latent",
}
BOUNDED = {
    "round trip": "decoded values are bounded once more: codes round trip, encode(decode(codes)) does not",
    "gain": "the bound's slope is part of the gradient",
    "commitment": "there is none",
}

CASES = {
    "vq": Case(lambda v, d: VQ(v, d)),
    "vq restart": Case(lambda v, d: VQ(v, d, Restart(v, every=2))),
    "vq anchors": Case(lambda v, d: VQ(v, d, Anchors(v)), ANCHORED),
    "vq kmeans": Case(lambda v, d: VQ(v, d, start=KMeans())),
    "vq rotation": Case(lambda v, d: VQ(v, d, estimator=Rotation()), {"gain": "the rotation turns gradients"}),
    "vq gumbel": Case(lambda v, d: VQ(v, d, estimator=Gumbel()), RANDOM),
    "vq diveq": Case(lambda v, d: VQ(v, d, estimator=DiVeQ()), RANDOM | {
        "exact": "in training the value is near the code", "gain": "the size of the error is part of the graph",
    }),
    "cosine": Case(lambda v, d: CosineVQ(v, d), UNIT),
    "cosine restart": Case(lambda v, d: CosineVQ(v, d, Restart(v, every=2)), UNIT),
    "cosine anchors": Case(lambda v, d: CosineVQ(v, d, Anchors(v)), UNIT | ANCHORED),
    "ema": Case(lambda v, d: EMAVQ(v, d)),
    "ema restart": Case(lambda v, d: EMAVQ(v, d, Restart(v, every=2))),
    "ema anchors": Case(lambda v, d: EMAVQ(v, d, Anchors(v)), ANCHORED),
    "ema kmeans restart": Case(lambda v, d: EMAVQ(v, d, Restart(v, every=2), KMeans())),
    "cosine ema": Case(lambda v, d: CosineEMAVQ(v, d), UNIT),
    "cosine ema kmeans restart": Case(lambda v, d: CosineEMAVQ(v, d, Restart(v, every=2), KMeans()), UNIT),
    "cosine ema anchors": Case(lambda v, d: CosineEMAVQ(v, d, Anchors(v)), UNIT | ANCHORED),
    "residual 1": Case(lambda v, d: Residual([EMAVQ(v, d)])),
    "residual 3": Case(lambda v, d: Residual([VQ(v, d) for _ in range(3)]), GREEDY),
    "residual 8": Case(lambda v, d: Residual([EMAVQ(v, d) for _ in range(8)]), GREEDY),
    "residual kmeans": Case(
        lambda v, d: Residual([EMAVQ(v, d, Restart(v, every=2), KMeans()) for _ in range(3)]), GREEDY
    ),
    "residual vq kmeans": Case(lambda v, d: Residual([VQ(v, d, start=KMeans()) for _ in range(3)]), GREEDY),
    "residual uniform": Case(
        lambda v, d: Residual([EMAVQ(v, d) for _ in range(4)], UniformDepth(0.7)), GREEDY | RANDOM
    ),
    "residual chosen": Case(
        lambda v, d: Residual([VQ(v, d) for _ in range(4)], PerBatch(ChosenDepth((1, 2, 4)))), GREEDY | RANDOM
    ),
    "residual rotation": Case(
        lambda v, d: Residual([EMAVQ(v, d) for _ in range(3)], estimator=Rotation()),
        GREEDY | {"gain": "the rotation turns gradients"},
    ),
    "residual mixed": Case(
        lambda v, d: Residual([EMAVQ(v, d), VQ(11, d), EMAVQ(5, d, Anchors(5))]), GREEDY | ANCHORED
    ),
    "simvq": Case(lambda v, d: SimVQ(v, d, penalty=Orthogonality())),
    "ibq": Case(lambda v, d: IBQ(v, d), PRODUCT),
    "ibq entropy": Case(lambda v, d: IBQ(v, d, Entropy(0.5)), PRODUCT),
    "residual ibq": Case(
        lambda v, d: Residual([IBQ(v, d) for _ in range(2)], UniformDepth(0.5), Propagation()), PRODUCT | RANDOM
    ),
    "angular": Case(lambda v, d: AngularVQ(v, d)),
    "shared mapping": Case(lambda v, d: SharedMapping(v, d - 2, 2), UNIT),
    # temperature 1: at 0.01 rounding in one step is a hundred times as much in the next, which no comparison survives
    "lfq": Case(lambda v, d: LFQ(d, temperature=1.0)),
    "lfq groups": Case(lambda v, d: LFQ(d, 2, temperature=1.0, order="little")),
    "bsq": Case(lambda v, d: BSQ(d), UNIT),
    "gq": Case(lambda v, d: GQ(2, d // 2, temperature=1.0)),
    "residual lfq": Case(lambda v, d: ResidualLFQ(d, 3, temperature=1.0)),
    "fsq": Case(lambda v, d: FSQ(LEVELS[:d]), BOUNDED),
    "fsq symmetric": Case(lambda v, d: SymmetricFSQ(LEVELS[:d]), BOUNDED),
    "fsq factorised": Case(lambda v, d: FactorisedFSQ(LEVELS[:d]), BOUNDED),
    "residual fsq": Case(lambda v, d: ResidualFSQ(LEVELS[:d], 3), BOUNDED),
    "projected": Case(lambda v, d: Projected(VQ(v, 3), d), PROJECTED),
    "projected cosine ema": Case(lambda v, d: Projected(CosineEMAVQ(v, 3, Restart(v, every=2)), d), PROJECTED),
    "residual projected": Case(lambda v, d: Residual([Projected(AngularVQ(v, 3), d) for _ in range(3)]), PROJECTED),
    "grouped": Case(lambda v, d: Grouped([VQ(v, d // 2), EMAVQ(v + 3, d - d // 2)])),
    "grouped uniform": Case(
        lambda v, d: Grouped([Residual([EMAVQ(v, d // 2) for _ in range(3)], UniformDepth()) for _ in range(2)]),
        GREEDY | RANDOM,
    ),
    "grouped kmeans": Case(
        lambda v, d: Grouped([Residual([EMAVQ(v, d // 2, start=KMeans()) for _ in range(2)]) for _ in range(2)]), GREEDY
    ),
    "split": Case(
        lambda v, d: Split([
            Projected(Residual([EMAVQ(v, 3)]), d, bias=False),
            Projected(Residual([EMAVQ(v, 3) for _ in range(3)]), d, bias=False),
        ]), PROJECTED,
    ),
}


def names(*properties: str) -> list[str]:
    """The cases that claim all of these properties."""
    return [name for name, case in CASES.items() if not case.excused.keys() & set(properties)]


def built(name: str, vocab_size: int = V, dim: int = D, seed: int = 0) -> Quantizer:
    """As its constructor leaves it, in training mode."""
    torch.manual_seed(seed)
    return CASES[name].build(vocab_size, dim)


def ready(name: str, vocab_size: int = V, dim: int = D, seed: int = 0) -> Quantizer:
    """With entries spread like the latents of `latents`, finer by layer, and started."""
    quantizer = built(name, vocab_size, dim, seed)
    spread(quantizer)
    return quantizer


def spread(quantizer: torch.nn.Module) -> None:
    """Gives every table random entries that are multiples of 1/64: about N(0, 1), then 2^-k for later ones."""
    generator = torch.Generator().manual_seed(7)
    for k, part in zip(count(), (m for m in quantizer.modules() if isinstance(m, TableVQ)), strict=False):
        entries = dyadic(part.codebook.shape, generator) / 2 ** min(k, 4)
        part.begin(part.normalise(entries), torch.ones(len(entries)))


def dyadic(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """About N(0, 1), every number a multiple of 1/64: made of integers, so the same on every machine."""
    return sum(torch.randint(-32, 33, shape, generator=generator) for _ in range(12)).float() / 64


def latents(shape: tuple[int, ...] | str, seed: int = 0) -> Tensor:
    """z (B, D, *S), about N(0, 1)."""
    wanted = SHAPES[shape] if isinstance(shape, str) else shape
    return dyadic(wanted, torch.Generator().manual_seed(seed))


def mask(kind: str, z: Tensor) -> Tensor | None:
    """bool (B, *S) or None."""
    if kind == "none":
        return None
    valid = torch.rand(z.shape[0], *z.shape[2:], generator=torch.Generator().manual_seed(1)) > 0.4
    if kind == "empty row":
        valid[1] = False
    return valid


def decoded(quantizer: Quantizer, codes: Tensor, depth: Tensor | None = None) -> Tensor:
    """What the codes stand for; of each sample only the first `depth` codebooks."""
    if depth is None:
        return quantizer.decode(codes)
    return torch.cat([quantizer.decode(c[None, :n]) for c, n in zip(codes, depth.tolist(), strict=True)])
