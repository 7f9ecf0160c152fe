"""`codeczoo latents`: what a frozen autoencoder makes of pictures, on disk, for the training of codecs behind it."""

import argparse
from pathlib import Path
from typing import Any

from codeczoo.cli import common


def add_parser(subparsers: Any) -> None:
    """Declares the arguments."""
    parser = subparsers.add_parser(
        "latents",
        description="Encodes training pictures once with a KL autoencoder; codecs behind it (FlexTok) train with "
        "data=latents data.cache=OUT. Each view is a draw of the training augmentation: shorter side to --size, random "
        "crop, flip.",
    )
    parser.add_argument("path", metavar="PATH", help="folder of pictures, or a manifest")
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="folder to write")
    parser.add_argument("--vae", required=True, metavar="NAME", help="weights file or run folder of a KL autoencoder")
    parser.add_argument("--size", required=True, type=common.positive, metavar="N", help="pictures get N x N pixels")
    parser.add_argument("--views", type=common.positive, default=2, metavar="N", help="views of each (default 2)")
    parser.add_argument("--batch", type=common.positive, default=32, metavar="N", help="pictures at once (default 32)")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes that read ahead (default 2)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--json", action="store_true", help="the report as JSON on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Encodes. Returns 1 when a picture could not be read."""
    from codeczoo import zoo
    from codeczoo.core.errors import InputError
    from codeczoo.data import latents
    from codeczoo.data.media import Pictures, listing
    from codeczoo.image.kl_vae import KLVAE

    report, folder, root = common.Report(args.json), common.output_folder(args.output), Path(args.path)
    vae = zoo.load_autoencoder(args.vae)
    if not isinstance(vae, KLVAE):
        raise InputError(f"--vae {args.vae}: {type(vae).__name__} is no KL autoencoder")
    if args.size % vae.stride:
        raise InputError(f"--size must be a multiple of {vae.stride}, the autoencoder's stride, got {args.size}")
    files = listing(root, Pictures.suffixes)
    digest = zoo.weights_hash(vae)
    index = latents.LatentIndex(digest, str(files.root.absolute()), [*files.keys], args.size, args.views)
    side = args.size // vae.stride
    encoded = latents.encode(vae.to(common.device_of(args.device)), files, index, args.batch, args.workers)
    total = -(-len(files.keys) * args.views // args.batch)
    found = latents.write(folder, index, (vae.dim, side, side), common.progress(encoded, total, "latents"))
    for name, key in zip(files.keys, found.keys, strict=True):
        if key is None:
            report.fail(files.root / name, "cannot be read")
    report.done = sum(key is not None for key in found.keys)
    facts = {"views": args.views, "mean": f"{found.mean:.3g}", "std": f"{found.std:.3g}"}
    return report.finish("encoded", facts | {"codec.vae.scale": f"{1 / found.std:.4g}"})
