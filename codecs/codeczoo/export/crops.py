"""Text that can still be read and faces that can still be known, after TokBench: its annotations, networks by path."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from math import log
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from codeczoo.core.errors import InputError, WeightsError
from codeczoo.export.batches import Prefix
from codeczoo.export.sources import Sample
from codeczoo.io import image
from codeczoo.metrics.crops import face_crop, text_crop, text_ned

SCALES = {  # of the shorter side of what the codec sees: bounds of small, middle, large text; faces likewise
    256: ((0.02, 0.03, 0.04, 1.0), (0.0, 0.1, 0.2, 1.0)),
    512: ((0.01, 0.02, 0.03, 1.0), (0.0, 0.05, 0.2, 1.0)),
    1024: ((0.005, 0.01, 0.02, 1.0), (0.0, 0.05, 0.1, 1.0)),
}
NAMES = ("small", "middle", "large")
Values = dict[str, list[list[float]]]  # of each measure, those of small, middle and large crops


class Word(NamedTuple):
    """Text in a picture: left, top, right, bottom in pixels, its size as a share of the picture."""

    box: tuple[int, int, int, int]
    text: str
    ratio: float


class Face(NamedTuple):
    """A face in a picture: five points (x, y) in pixels, its size as a share of the picture."""

    points: tuple[tuple[float, float], ...]
    ratio: float


class Crops:
    """Reads words and compares faces in what was decoded.

    Source: TokBench (arXiv 2505.18142), github.com/wjf5203/TokBench: T-ACC (share of words read without a mistake),
        T-NED (1 - edit distance / length), F-Sim (cosine of the embeddings of a face before and after), each the mean
        over three groups of size of the means in them.
    Differs: the networks are whatever the scripts hold (TokBench: docTR's PARSeq, insightface's antelopev2); what was
        decoded comes back to the picture's own size by our resize; crops that the codec does not see do not count.

    Args:
        side: shorter side of what the codec sees, pixels; it says which groups there are.
        words, faces: of each picture, by its file name.
        read: crops (n, 3, 32, 128) in [0, 1] to n strings; None: words are not read.
        embed: crops (n, 3, 112, 112) in [0, 1] to (n, D); None: faces are not compared.
    """

    def __init__(
        self,
        side: int,
        words: Mapping[str, Sequence[Word]],
        faces: Mapping[str, Sequence[Face]],
        read: Callable[[Tensor], Sequence[str]] | None,
        embed: Callable[[Tensor], Tensor] | None,
    ) -> None:
        self.words, self.faces = words if read else {}, faces if embed else {}
        self.read, self.embed = read, embed
        self.bounds = SCALES[min(SCALES, key=lambda each: abs(log(each / side)))]
        self._originals: Values = {}
        self._last: tuple[Path | None, Tensor] = None, torch.empty(0)
        self._rows: dict[tuple[int, int], Values] = {}

    def see(self, sample: Sample) -> None:
        """Measures an original."""
        if sample.x is not None:
            self._measure(sample, sample.x[0], self._originals)

    def see_decoded(self, rate: int, row: int, sample: Sample, x_hat: Tensor) -> None:
        """Measures what became of it, in one row of one rate."""
        self._measure(sample, x_hat, self._rows.setdefault((rate, row), {}))

    @torch.inference_mode()
    def _measure(self, sample: Sample, x: Tensor, values: Values) -> None:
        name = sample.found.path.name
        shown, moved = whole(sample, x)
        crops = [(word, text_crop(shown, shifted(word.box, moved))) for word in self.words.get(name, ())]
        seen = [(word, crop) for word, crop in crops if crop is not None]
        if seen and self.read is not None:
            for (word, _), got in zip(seen, self.read(torch.stack([crop for _, crop in seen])), strict=True):
                self._put(values, "t_acc", 0, word.ratio, float(got == word.text))
                self._put(values, "t_ned", 0, word.ratio, text_ned(word.text, got))
        if name in self.faces and self.embed is not None:
            before = self._before(sample)
            for face in self.faces[name]:
                points = torch.tensor(face.points)
                pair = face_crop(before, points), face_crop(shown, points - torch.tensor(moved))
                if pair[0] is not None and pair[1] is not None:
                    a, b = self.embed(torch.stack([pair[0], pair[1]])).double().cpu()
                    self._put(values, "f_sim", 1, face.ratio, float(torch.cosine_similarity(a, b, 0)))

    def _before(self, sample: Sample) -> Tensor:
        """The picture as it is in its file (3, H, W), which is not what the codec got of it. Keeps the last one."""
        path, picture = self._last
        if path != sample.found.path:
            picture = image.read(sample.found.source()).float() / 255
            self._last = sample.found.path, picture
        return picture

    def _put(self, values: Values, name: str, kind: int, ratio: float, value: float) -> None:
        bounds = self.bounds[kind]
        for group, (low, high) in enumerate(pairwise(bounds)):
            if low <= ratio < high:
                values.setdefault(name, [[], [], []])[group].append(value)

    def result(self, rates: Sequence[Prefix]) -> tuple[dict[str, Any], dict[tuple[int, int], dict[str, float]]]:
        """What holds for all rates, and the measures of each row. Raises InputError where no crop was seen."""
        if not self._originals:
            raise InputError("none of the words and faces that are annotated is in what the codec saw of the pictures")
        counts = {
            f"{kind}_{size}": len(self._originals[name][i])
            for kind, name in (("words", "t_acc"), ("faces", "f_sim"))
            for i, size in enumerate(NAMES)
            if name in self._originals
        }
        return counts | {"originals": _means(self._originals)}, {key: _means(own) for key, own in self._rows.items()}


def _means(values: Values) -> dict[str, float]:
    """Of each group, and the mean of these."""
    found: dict[str, float] = {}
    for name, groups in values.items():
        means = {size: sum(own) / len(own) for size, own in zip(NAMES, groups, strict=True) if own}
        found[name] = sum(means.values()) / len(means)
        found |= {f"{name}_{size}": mean for size, mean in means.items()}
    return found


def whole(sample: Sample, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """x (3, h, w) at the scale of its picture, and how many columns and rows of it are missing before."""
    plan = sample.fit
    if not isinstance(plan, image.Fit):
        return x, (0, 0)
    shown = image.unfit(x[None], plan)
    if plan.mode != "crop":
        return shown, (0, 0)
    top, left = ((n - kept) // 2 for n, kept in zip(plan.original, shown.shape[1:], strict=True))
    return shown, (left, top)


def shifted(box: tuple[int, int, int, int], by: tuple[int, int]) -> tuple[int, int, int, int]:
    """A box where `by` columns and rows are missing before."""
    return box[0] - by[0], box[1] - by[1], box[2] - by[0], box[3] - by[1]


def words_of(path: Path) -> dict[str, list[Word]]:
    """TokBench's annotations of text, `text_*.json`. Raises InputError."""
    return _annotations(
        path, "file_name", "annotations",
        lambda a: Word(tuple(int(n) for n in a["bbox"]), str(a["rec"]), float(a["ratio"])),  # type: ignore[arg-type]
    )  # fmt: skip


def faces_of(path: Path) -> dict[str, list[Face]]:
    """TokBench's annotations of faces, `face_meta.json`. Raises InputError."""
    return _annotations(
        path, "image_name", "faces",
        lambda a: Face(tuple((float(x), float(y)) for x, y in a["kps"]), float(a["ratio"])),
    )  # fmt: skip


def _annotations(path: Path, name: str, things: str, of: Callable[[Any], Any]) -> dict[str, list[Any]]:
    try:
        entries: Iterable[Any] = json.loads(path.read_text(encoding="utf-8"))
        found = [(Path(entry[name]).name, [of(thing) for thing in entry[things]]) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: no annotations of TokBench ({type(error).__name__}: {error})") from None
    key, times = Counter(key for key, _ in found).most_common(1)[0] if found else ("", 1)
    if times > 1:
        raise InputError(f"{path}: {times} pictures are called {key}")
    return dict(found)


def script(path: Path, device: torch.device) -> Callable[[Tensor], Any]:
    """A network out of a TorchScript archive: crops in, whatever it makes of them out. Raises InputError, WeightsError.

    Running an archive runs what its author wrote, as TorchScript allows it: files and networks are out of its reach.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; a TorchScript archive is wanted (torch.jit.save)")
    try:
        network = torch.jit.load(path, map_location=device).eval()
    except RuntimeError as error:
        raise WeightsError(f"{path}: no TorchScript network ({str(error).strip().splitlines()[0]})") from None
    return lambda crops: network(crops.to(device))
