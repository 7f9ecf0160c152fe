"""`codeczoo demo`: a page in the browser where files go through codecs."""

import argparse
from typing import Any

from codeczoo.cli import common
from codeczoo.core.errors import MissingError
from codeczoo.core.places import DEFAULTS, shipped

LARGEST = "200mb"  # of a file that is dropped


def add_parser(subparsers: Any) -> None:
    """Declares the arguments."""
    parser = subparsers.add_parser(
        "demo",
        description="Drop a picture, a sound or a clip, move the slider, see and hear what is left. Works offline.",
    )
    what = "shipped names, weights files or folders (default: all that are shipped)"
    parser.add_argument("--codec", action="append", metavar="NAME", help=f"give it again for more: {what}")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: this machine alone)")
    parser.add_argument("--port", type=common.positive, default=7860, metavar="N", help="(default 7860)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.set_defaults(run=run, batch=8, precision="float32")


def run(args: argparse.Namespace) -> int:
    """Serves the page until it is interrupted."""
    from codeczoo.core.errors import InputError

    names = args.codec or sorted(shipped(), key=lambda name: name not in DEFAULTS.values())  # what a tab begins with
    if not names:
        raise InputError("no weights are shipped: name a codec with --codec")
    try:
        from codeczoo.cli.demo_page import page
    except ImportError as error:
        if error.name != "gradio":
            raise
        raise MissingError('the demo needs gradio: pip install "codeczoo[demo]"') from None
    runners = [common.open_codec(args, name) for name in names]
    try:
        page(runners).launch(
            server_name=args.host, server_port=args.port, quiet=True, prevent_thread_lock=True, max_file_size=LARGEST
        )
    except OSError as error:
        raise InputError(f"--port {args.port}: {error}") from None
    common.say(f"http://{args.host}:{args.port} (Ctrl-C ends it)")
    wait()
    return 0


def wait() -> None:
    """Until the process is interrupted."""
    from threading import Event

    Event().wait()
