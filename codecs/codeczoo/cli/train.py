"""`codeczoo train`: a codec from a recipe."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from codeczoo.core.errors import InputError

EPILOG = """examples:
  codeczoo train image/one_d_piece_tiny
  codeczoo train image/titok_s128_stage2 data=image_folder data.root=photos trainer.devices=8 trainer.num_nodes=4
  codeczoo train my_recipe.yaml optimizer.lr=2e-4 --resume last"""


def add_parser(subparsers: Any) -> None:
    """Adds the command and its arguments."""
    parser = subparsers.add_parser(
        "train", help="train a codec from a recipe", description="Train a codec from a recipe.", epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", help="name of a recipe (see `codeczoo list`) or path of a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the recipe; also group=option")
    parser.add_argument("--resume", metavar="last|PATH", help="go on with the newest run of this name, or this one")
    parser.add_argument("-o", "--out", default="runs", metavar="DIR", help="runs are DIR/NAME/DATE (default: runs)")
    parser.add_argument("--check", action="store_true", help="compose, check and print a summary, without training")
    parser.set_defaults(run=run)
    parse = parser.parse_known_args

    def parse_anywhere(args: Any, namespace: Any = None) -> tuple[argparse.Namespace, list[str]]:
        """Takes overrides after options too, which argparse does not."""
        found, rest = parse(args, namespace)
        found.overrides += [word for word in rest if not word.startswith("-")]
        return found, [word for word in rest if word.startswith("-")]

    parser.parse_known_args = parse_anywhere


def run(args: argparse.Namespace) -> int:
    """Composes, then trains or prints the summary."""
    from codeczoo.core.errors import MissingError
    from codeczoo.engine.compose import compose, missing

    config = compose(args.recipe, args.overrides)
    try:
        from codeczoo.engine.run import parameter_count, train
    except ModuleNotFoundError as error:
        raise MissingError(f'{error.name} is not installed: pip install "codeczoo[train]"') from None
    if args.check:
        for key in ("root", "val_root"):
            check_there(key, config["data"].get(key))
        sys.stdout.write(summary(config, parameter_count(config), missing(config)))
        return 0
    outcome = train(config, args.out, args.resume)
    if outcome.interrupted and outcome.first:
        again = shlex.join(["codeczoo", "train", args.recipe, *args.overrides, "--resume", str(outcome.folder)])
        sys.stderr.write(f"interrupted at step {outcome.step}, checkpoint saved; go on with: {again}\n")
    elif outcome.first:
        sys.stdout.write(f"{outcome.folder}\n")
    return 130 if outcome.interrupted else 0


def check_there(key: str, value: Any) -> None:
    """Raises InputError where data.KEY is a single file or folder that is not there."""
    if isinstance(value, str) and not set(value) & set("*?[{") and not Path(value).exists():
        raise InputError(f"data.{key}={value}: no such file or folder")


def summary(config: dict[str, Any], parameters: int, unset: list[str]) -> str:
    """The run in a few lines."""
    trainer, data = config["trainer"], config["data"]
    lines = {
        "codec": f"{config['codec']['_target_'].rpartition('.')[2]}, {parameters:,} parameters",
        "objective": ", ".join(f"{weight:g} {name}" for name, weight in config["objective"]["weights"].items()),
        "adversaries": ", ".join(f"{n} from step {a['start']}" for n, a in config["adversaries"].items()) or "none",
        "data": ", ".join(f"{k}={v}" for k, v in data.items() if not k.startswith("_") and v is not None),
        "batch": f"{data.get('batch_size', '?')} x {config['task'].get('accumulate', 1)} a device",
        "steps": str(trainer["max_steps"]),
        "devices": f"{trainer.get('devices')} x {trainer.get('num_nodes')} nodes, {trainer.get('strategy')}",
        "precision": str(trainer.get("precision")),
        "to be set": ", ".join(unset) or "nothing",
    }
    return "".join(f"{name:12} {value}\n" for name, value in lines.items())
