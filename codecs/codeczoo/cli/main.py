"""`codeczoo COMMAND ...`: finds the command's module, runs it, turns errors into one line and an exit code.

Exit codes: 0 done; 1 done, but some inputs failed or missed their --target (each was reported); 2 nothing could be
done; 130 interrupted.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from codeczoo import __version__
from codeczoo.core.errors import CodeczooError, InputError, nearest

# command: (module, its line in `codeczoo --help`). A table, so that the help costs no import.
COMMANDS = {
    "train": ("codeczoo.cli.train", "train a codec from a recipe"),
    "latents": ("codeczoo.cli.latents", "pictures through an autoencoder once, for codecs that train behind it"),
    "encode": ("codeczoo.cli.encode", "files to .cz token files"),
    "decode": ("codeczoo.cli.decode", ".cz token files back to media"),
    "export": ("codeczoo.cli.export", "tokens as a data set for language-model training"),
    "vocabulary": ("codeczoo.cli.vocabulary", "one vocabulary for text and several codecs"),
    "context": ("codeczoo.cli.context", "learn a model of a codec's codes, for smaller .cz files"),
    "inspect": ("codeczoo.cli.inspect", "what is in an export; samples of it decoded"),
    "eval": ("codeczoo.cli.eval", "quality and bits at every rate, beside JPEG and WebP"),
    "report": ("codeczoo.cli.report", "codecs on files, as a page to look at and listen to"),
    "list": ("codeczoo.cli.list", "table of all recipes"),
    "info": ("codeczoo.cli.info", "about a recipe, a weights file or a .cz file"),
    "import": ("codeczoo.cli.import_", "turn the authors' own checkpoint into a codeczoo file"),
    "demo": ("codeczoo.cli.demo", "a page in the browser: drop a file, move the slider"),
    "push": ("codeczoo.cli.push", "put a codec on the Hugging Face Hub"),
    "quickstart": ("codeczoo.cli.quickstart", "train a tiny codec and use it, in three minutes on a CPU"),
}


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises InputError instead of printing its usage and leaving the process."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see {self.prog} --help)")


def build_parser(command: str | None) -> Parser:
    """The parser with the arguments of one command; the other commands are there by name only."""
    parser = Parser(prog="codeczoo", description="Discrete tokenizers for images, audio and video.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"codeczoo {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    for name, (module, line) in COMMANDS.items():
        if command is None:
            subparsers.add_parser(name, help=line)
        elif name == command:
            import_module(module).add_parser(subparsers)
    return parser


def run_command(arguments: Sequence[str]) -> int:
    """Parses and runs. Raises CodeczooError for everything that the user can mend."""
    command = next((a for a in arguments if not a.startswith("-")), None)
    if command is not None and command not in COMMANDS:
        raise InputError(f"no command '{command}'; {nearest(command, COMMANDS)}")
    try:
        args = build_parser(command).parse_args(arguments)
    except SystemExit as stop:  # --help and --version end this way
        return int(stop.code or 0)
    return int(args.run(args))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line (default: the process's own) and returns its exit code."""
    try:
        return run_command(sys.argv[1:] if arguments is None else arguments)
    except CodeczooError as error:
        return fail(str(error))
    except BrokenPipeError:  # `codeczoo list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # disk full, read-only folder, no permission
        return fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
    except KeyboardInterrupt:
        return fail("interrupted", 130)


def fail(message: str, code: int = 2) -> int:
    """One line on stderr; returns the exit code."""
    sys.stderr.write(f"codeczoo: error: {' '.join(message.split())}\n")
    return code
