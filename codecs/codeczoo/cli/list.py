"""`codeczoo list`: table of all recipes and of the weights that come with the package."""

import argparse
import json
from typing import Any

from codeczoo.cli import cards, common
from codeczoo.core.places import shipped
from codeczoo.core.summary import summary

COLUMNS = ("system", "paper", "tokens", "bits", "params", "status")


def add_parser(subparsers: Any) -> None:
    """Declares the arguments."""
    parser = subparsers.add_parser("list", description="Every recipe with its card, then the weights that are shipped.")
    parser.add_argument("--json", action="store_true", help="as JSON on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the table."""
    recipes = [{"recipe": name, **cards.card(path)} for name, path in cards.recipes().items()]
    weights = [{"weights": name, **about(name)} for name in shipped()]
    if args.json:
        common.say(json.dumps({"recipes": recipes, "weights": weights}))
        return 0
    common.table(("recipe", *COLUMNS), recipes)
    if weights:
        common.table(("weights", "media", "tokens", "bits", "prefixes", "parameters"), weights)
    return 0


def about(name: str) -> dict[str, Any]:
    """What the header of shipped weights says."""
    header = cards.weights_header(shipped()[name])
    return summary(header["spec"]) | {"parameters": header["parameters"]}
