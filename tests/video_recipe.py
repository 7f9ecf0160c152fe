"""The smallest recipe of a video codec with all that trains one: clips and pictures, random frames, adversaries."""

from pathlib import Path
from typing import Any

import yaml


def joint_recipe(folder: Path) -> str:
    """Path of a recipe file."""
    patches = {"width": 32, "layers": 1}
    contest = {
        "_target_": "codeczoo.engine.contest.Contest", "start": 1,
        "weight": {"_target_": "codeczoo.engine.contest.FixedWeight", "value": 0.1},
    }  # fmt: skip
    parts = [
        part
        for name in ("frames", "clips")
        for part in (
            {f"/adversary@adversaries.{name}.adversary": f"patchgan_{name}"},
            {f"/optimizer@adversaries.{name}.optimizer": "adam_vidtok"},
            {f"/schedule@adversaries.{name}.schedule": "constant"},
        )
    ]
    tree: dict[str, Any] = {
        "defaults": [
            "/train", {"/codec": "vidtok"}, {"/objective": "pixels"}, *parts, {"/data": "joint"},
            {"/data@data.clips": "generated_video"}, {"/data@data.pictures": "generated"},
            {"override /schedule": "constant"}, {"override /validation": "video"}, {"override /logger": "none"},
            {"override /trainer": "cpu"}, "_self_",
        ],
        "name": "video_test",
        "codec": {
            "encoder": {"dim": 3, "width": 8, "multipliers": [1, 2], "blocks": 1, "time_levels": [0]},
            "quantizer": {"levels": [8, 8, 8]},
            "decoder": {"blocks": 1, "time_levels": [0], "up": "repeat"},
        },
        "objective": {
            "terms": {
                "frames": {
                    "_target_": "codeczoo.losses.frames.Frames", "frames": 2,
                    "term": {"_target_": "codeczoo.losses.pixel.L1"},
                },
            },
            "weights": {"frames": 1.0},
        },
        "adversaries": {
            "frames": contest | {"adversary": {"discriminator": {"frames": 1, "discriminator": patches}}},
            "clips": contest | {"adversary": {"discriminator": patches}},
        },
        "data": {
            "share": 0.5,
            "clips": {"image_size": 12, "frames": 5, "batch_size": 2, "n_train": 8, "n_val": 4, "workers": 0},
            "pictures": {"image_size": 12, "batch_size": 3, "n_train": 9, "workers": 0},
        },
        "optimizer": {"lr": 3e-3},
        "trainer": {"max_steps": 6, "val_check_interval": 3, "log_every_n_steps": 1},
    }  # fmt: skip
    path = folder / "video_test.yaml"
    path.write_text("# @package _global_\n" + yaml.safe_dump(tree, sort_keys=False))
    return str(path)
