"""`codeczoo info`: about a recipe, a weights file or a .cz file."""

import argparse
import json
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codeczoo.cli import cards, common
from codeczoo.core.errors import InputError, nearest
from codeczoo.core.places import shipped
from codeczoo.core.summary import summary

if TYPE_CHECKING:
    from codeczoo.io.header import Header


def add_parser(subparsers: Any) -> None:
    """Declares the arguments."""
    parser = subparsers.add_parser("info", description="What a recipe, a weights file or a .cz file says of itself.")
    parser.add_argument("name", metavar="NAME|FILE", help="recipe, shipped weights, .safetensors or .cz file")
    parser.add_argument("--json", action="store_true", help="everything, as JSON on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints one line per fact."""
    facts = about(args.name)
    if args.json:
        common.say(json.dumps(facts))
        return 0
    width = max(map(len, facts))
    for key, value in facts.items():
        common.say(f"{key:<{width}}  {value if isinstance(value, str | int | float) else json.dumps(value)}")
    return 0


def about(name: str) -> dict[str, Any]:
    """Facts of whatever `name` means. Raises InputError with the nearest names."""
    path = Path(name)
    if path.suffix == ".cz":
        return tokens_facts(path)
    if path.is_dir() and (found := sorted(path.glob("*.safetensors"))):
        path = next((p for p in found if p.name == "best.safetensors"), found[0])
    weights = shipped().get(name, path)
    if weights.suffix == ".safetensors" and weights.is_file():
        return weights_facts(weights)
    recipes = cards.recipes()
    short = [full for full in recipes if full == name or Path(full).name == name]
    if not short:
        raise InputError(f"no recipe or weights '{name}'; {nearest(name, [*recipes, *shipped()])}")
    return recipe_facts(short[0], recipes[short[0]])


def tokens_facts(path: Path) -> dict[str, Any]:
    """The header of a .cz file."""
    from codeczoo.io import tokens

    header = tokens.read_header(path)
    facts = {
        "file": str(path),
        "codec": header.codec,
        "weights_hash": header.weights_hash,
        **summary(header.spec.to_dict()),
        "samples": header.batch,
        "sizes": header.size[0],
        "shapes": header.shapes,
        **(clip_facts(header) if header.spec.media == "video" else {}),
        "fit": header.fit,
        **target_facts(header),
        **attachment_facts(path),
        "payload_bytes": header.payload_bytes,
        "bytes": header.total_bytes,
    }
    if header.spec.unit == "pixel":
        facts["file_bpp"] = round(8 * header.total_bytes / sum(map(prod, header.size)), 6)
    return {key: value for key, value in facts.items() if value is not None}


def clip_facts(header: "Header") -> dict[str, Any]:
    """What a clip was, in words."""
    from codeczoo.io.video_fit import VideoFit

    frames, height, width = header.size[0]
    rate = None if header.fit is None else VideoFit.from_dict(header.fit).rate
    seconds = "" if rate is None else f", {float(rate):.5g} frames/s, {float(frames / rate):.2f} s"
    return {"clip": f"{frames} frame{'s' if frames > 1 else ''} of {height}x{width}{seconds}"}


def target_facts(header: "Header") -> dict[str, Any]:
    """What the number of tokens was chosen for."""
    if header.target is None:
        return {}
    facts = header.target.to_dict()
    return facts | {"met": header.target.met} if "target" in facts else facts


def attachment_facts(path: Path) -> dict[str, Any]:
    """What goes with the tokens; of tokens among it, their codec."""
    from codeczoo.io import tokens

    facts: dict[str, Any] = {}
    for name, data in tokens.read_attachments(path).items():
        of = f", tokens of {tokens.read_header(data).codec}" if name.endswith(tokens.SUFFIX) else ""
        facts[name] = f"{len(data)} bytes{of}"
    return facts


def recipe_facts(name: str, path: Path) -> dict[str, Any]:
    """The card of a recipe and the comment at its head."""
    head = []
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        head.append(line.lstrip("# "))
    about = " ".join(line for line in head if line and not line.startswith("@package"))
    return {"recipe": name, "file": str(path), **cards.card(path), **({"about": about} if about else {})}


def weights_facts(path: Path) -> dict[str, Any]:
    """The header of a weights file."""
    header = cards.weights_header(path)
    facts = {"file": str(path), "bytes": path.stat().st_size, "class": header["class"], **summary(header["spec"])}
    facts |= {key: header[key] for key in ("parameters", "sampling", "weights_hash", "version") if key in header}
    return facts | header.get("extra", {})
