"""The options of `codeczoo eval` and `report` for text and faces."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codeczoo.core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from codeczoo.export.batches import Runner
    from codeczoo.export.crops import Crops
    from codeczoo.io.files import Found


def add_crops(parser: argparse.ArgumentParser) -> None:
    """--text-model, --text-boxes, --face-model, --face-points."""
    group = parser.add_argument_group("text and faces", "of pictures, as TokBench annotates them; TorchScript archives")
    group.add_argument("--text-model", metavar="P", help="takes crops (n, 3, 32, 128) in [0, 1], gives n strings")
    group.add_argument("--text-boxes", metavar="JSON", help="TokBench's text_*.json: where which words are")
    group.add_argument("--face-model", metavar="P", help="takes crops (n, 3, 112, 112) in [0, 1], gives (n, D)")
    group.add_argument("--face-points", metavar="JSON", help="TokBench's face_meta.json: where faces are")


def crops_of(args: argparse.Namespace, runner: "Runner", files: "Sequence[Found]") -> "Crops | None":
    """What reads and compares as the options ask; None without them, and for other media.

    Raises InputError, also where none of the files is annotated.
    """
    for model, places in (("text_model", "text_boxes"), ("face_model", "face_points")):
        if (getattr(args, model) is None) != (getattr(args, places) is None):
            raise InputError(f"--{model} and --{places} belong together: give both".replace("_", "-"))
    if runner.codec.spec.media != "image" or not (args.text_model or args.face_model):
        return None
    from codeczoo.export.crops import Crops, faces_of, script, words_of

    side = min(runner.codec.spec.input_size or (1024,))
    read = embed = None
    if args.text_model:
        reader = script(Path(args.text_model), runner.device)

        def read(crops: "Tensor") -> list[str]:
            found: Any = reader(crops)
            if not isinstance(found, list) or len(found) != len(crops) or not all(isinstance(t, str) for t in found):
                raise InputError(f"--text-model {args.text_model}: it gave no string for each crop")
            return found

    if args.face_model:
        embedder = script(Path(args.face_model), runner.device)

        def embed(crops: "Tensor") -> "Tensor":
            found: Any = embedder(crops)
            if getattr(found, "ndim", 0) != 2 or len(found) != len(crops):
                raise InputError(f"--face-model {args.face_model}: it gave no vector for each crop")
            return found

    words = words_of(Path(args.text_boxes)) if args.text_boxes else {}
    faces = faces_of(Path(args.face_points)) if args.face_points else {}
    if not any(one.path.name in places for one in files for places in (words, faces)):
        raise InputError("--text-boxes, --face-points: they annotate none of the inputs (file names are compared)")
    return Crops(side, words, faces, read, embed)
