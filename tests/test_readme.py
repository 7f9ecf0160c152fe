"""The README's commands are real commands, and the quickstart runs."""

import re
import shlex
from pathlib import Path

import pytest
from conftest import ROOT

from codeczoo.cli.main import build_parser, main

README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^codeczoo .*?(?=  +#|$)", README, re.M)


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 8


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_parse(line: str) -> None:
    words = shlex.split(line.removesuffix("..."))[1:]
    args = build_parser(words[0]).parse_args(words)
    assert callable(args.run)
    if words[0] == "train":
        from codeczoo.engine.compose import compose

        compose(args.recipe, args.overrides)


def test_ci_calls_the_readmes_test_line() -> None:
    pattern = re.search(r"grep -m1 -E '([^']+)' README.md", (ROOT / ".ci" / "run").read_text())
    assert pattern
    lines = [line for line in README.splitlines() if re.search(pattern.group(1), line)]
    assert lines == ["sh tools/setup.sh dev && .venv/bin/python -m pytest -q -n auto"]


def test_quickstart_shortened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All of it, but for the length of the training."""
    short = ["trainer.max_steps=3", "trainer.val_check_interval=3", "data.workers=0", "data.n_val=8"]
    assert main(["quickstart", "-o", str(tmp_path / "q"), *short]) == 0
    printed = capsys.readouterr().out
    for command in ("train", "encode", "decode", "export"):
        assert f"$ codeczoo {command} " in printed
    assert re.search(r"tokens +bits +bytes of \.cz +PSNR, dB +SSIM +codebook use", printed)
    made = {path.relative_to(tmp_path / "q").parts[0] for path in (tmp_path / "q").rglob("*")}
    assert {"media", "media_tokens", "media_decoded"} <= made  # what the shipped codecs made
    assert {"pictures", "tokens", "decoded_2", "decoded_8", "decoded_32", "export", "quickstart.png"} <= made
    assert len(list((tmp_path / "q" / "tokens").glob("*.cz"))) == 2
