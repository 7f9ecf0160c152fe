"""The documentation: every page in the navigation, every name and link there, every command real, every example run."""

import ast
import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import ROOT, one_d_piece_tree

import codeczoo
from codeczoo.cli.main import build_parser, main

DOCS = ROOT / "docs"
PAGES = {str(path.relative_to(DOCS)): path.read_text() for path in sorted(DOCS.rglob("*.md"))}
TUTORIALS = {name: text for name, text in PAGES.items() if name.startswith("tutorials/") or name == "index.md"}
REFERENCE = {name: text for name, text in PAGES.items() if name.startswith("reference/")}
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
FENCE = re.compile(r'^``` *(?P<language>\w*)(?: title="(?P<title>[^"]+)")?\n(?P<body>.*?)^```$', re.M | re.S)


def blocks(page: str, language: str, title: str | None = None) -> list[str]:
    """The fenced blocks of a page in a language, all or those with a title."""
    found = [m for m in FENCE.finditer(PAGES[page]) if m["language"] == language]
    return [m["body"] for m in found if title is None or m["title"] == title]


# --- pages, names, links ---------------------------------------------------------------------------------------------


def listed(nav: Any) -> Iterator[str]:
    """The files of a navigation tree."""
    if isinstance(nav, str):
        yield nav
    else:
        for item in nav.values() if isinstance(nav, dict) else nav:
            yield from listed(item)


def test_every_page_is_in_the_navigation_once() -> None:
    files = list(listed(SITE["nav"]))
    cards = {name for name in PAGES if name.startswith("models/")} - {"models/index.md"}
    assert sorted(files) == sorted(set(PAGES) - cards)  # which tools/docs_hooks.py adds


def target(identifier: str) -> Any:
    """What a dotted name means."""
    names = identifier.split(".")
    for depth in range(len(names), 0, -1):
        try:
            found = import_module(".".join(names[:depth]))
        except ModuleNotFoundError:
            continue
        for name in names[depth:]:
            found = getattr(found, name)
        return found
    raise AttributeError(identifier)


@pytest.mark.parametrize("page", REFERENCE)
def test_every_name_of_the_reference_resolves(page: str) -> None:
    pytest.importorskip("lightning")
    names = re.findall(r"^::: (\S+)(?:\n    options:\n      members: \[(.*)\])?", REFERENCE[page], re.M)
    assert names and len({name for name, _ in names}) == len(names)
    for name, members in names:
        found = target(name)
        for member in filter(None, members.split(", ")):
            has = hasattr(found, member) or member in getattr(found, "__annotations__", {})
            assert has, f"{page}: {name} has no {member}"


def concrete(package: str, *bases: type) -> set[str]:
    """Dotted names of the public classes of a package's modules that can be used, of these bases."""
    found = set()
    for path in sorted((ROOT / "codecs" / "codeczoo" / package).glob("[a-z]*.py")):
        name = f"codeczoo.{package}.{path.stem}"
        for _, cls in inspect.getmembers(import_module(name), inspect.isclass):
            public = cls.__module__ == name and not cls.__name__.startswith("_")
            if public and issubclass(cls, bases) and not inspect.isabstract(cls):
                found.add(f"{name}.{cls.__name__}")
    return found


def test_the_reference_names_all_there_is() -> None:
    pytest.importorskip("lightning")
    from codeczoo.core.base import Adversary, Autoencoder, Quantizer
    from codeczoo.data.module import DataModule
    from codeczoo.losses.base import Term

    wanted = {f"codeczoo.{name}" for name in codeczoo.__all__ if not name.startswith("_")}
    wanted |= concrete("quantizers", Quantizer) | concrete("losses", Term) | concrete("adversaries", Adversary)
    wanted |= concrete("data", DataModule)
    for media in ("image", "audio", "video"):
        wanted |= concrete(media, Autoencoder)
    named = {name for page in REFERENCE.values() for name in re.findall(r"^::: (\S+)", page, re.M)}
    assert sorted(wanted - named) == []


def anchors(text: str) -> set[str]:
    """Of the headings of a page, as MkDocs makes them."""
    heads = re.findall(r"^#+ +(.*)$", FENCE.sub("", text), re.M)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", head).strip().lower()) for head in heads}


@pytest.mark.parametrize("page", [*PAGES, "../README.md"])
def test_links_lead_somewhere(page: str) -> None:
    here = (DOCS / page).resolve()
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", here.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        there = (here.parent / file).resolve() if file else here
        assert there.is_file(), f"{page}: {link}"
        assert not anchor or anchor in anchors(there.read_text()), f"{page}: {link}"


def test_it_builds(tmp_path: Path) -> None:
    if not (find_spec("mkdocs") and find_spec("material") and find_spec("mkdocstrings_handlers")):
        pytest.skip('the pages are not built: pip install "codeczoo[docs]"')
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    for path in (tmp_path / "site").rglob("*.html"):  # nothing is fetched from elsewhere
        fetched = re.findall(r'<(?:script|link|img)\b[^>]*(?:src|href)="?https?:[^>]*>', path.read_text())
        assert not [tag for tag in fetched if 'rel="canonical"' not in tag], path


# --- commands --------------------------------------------------------------------------------------------------------


def command_lines(text: str) -> Iterator[str]:
    """The `codeczoo ...` in blocks of shell lines, also behind srun and torchrun, joined where they are continued."""
    for match in FENCE.finditer(text):
        if match["language"] in ("", "sh"):
            body = re.sub(r"\\\n\s*|\n  +(?=\w+[.=])", " ", match["body"])
            for line in body.splitlines():
                found = re.match(r"(?:|.*(?:srun|-m)\b.*? |    )(codeczoo (?!COMMAND).*)", line)
                if found and not line.startswith("#"):
                    yield found[1]


COMMANDS = [(page, line) for page, text in PAGES.items() for line in command_lines(text)]


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=[f"{page}: {line}" for page, line in COMMANDS])
def test_commands_parse(page: str, line: str) -> None:
    words = [word for word in shlex.split(line, comments=True)[1:] if word != "..." and not word.startswith("$")]
    args = build_parser(words[0]).parse_args(words)
    assert callable(args.run)
    if words[0] == "train" and not args.recipe.endswith(".yaml"):
        pytest.importorskip("hydra")
        from codeczoo.engine.compose import compose, missing

        config = compose(args.recipe, args.overrides)
        assert page not in TUTORIALS or missing(config) == []


def test_commands_are_found() -> None:
    for page in TUTORIALS:
        assert any(page == found for found, _ in COMMANDS), page
    assert any("--engine ranks" in line for page, line in COMMANDS if page == "tutorials/slurm.md")


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize("state", ["new", "begun", "out of time"])
def test_slurm_script_goes_on_and_asks_for_more(state: str, tmp_path: Path) -> None:
    """With stand-ins for srun and scontrol that write down what they are asked."""
    code = 130 if state == "out of time" else 0
    for name, status in (("srun", code), ("scontrol", 0)):
        (tmp_path / name).write_text(f'#!/bin/bash\necho "{name} $*" >> "{tmp_path}/asked"\nexit {status}\n')
        (tmp_path / name).chmod(0o755)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").touch()
    (script,) = blocks("tutorials/slurm.md", "sh", "train.sbatch")
    (tmp_path / "train.sbatch").write_text(script)
    last = Path("runs") / "titok_bl64_vq8k" / "slurm-77" / "last.ckpt"
    if state == "begun":
        (tmp_path / last).parent.mkdir(parents=True)
        (tmp_path / last).touch()
    about = {"SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_ID": "77", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "train.sbatch"], cwd=tmp_path, env={**os.environ, **about})
    asked = (tmp_path / "asked").read_text().splitlines()
    assert done.returncode == code and asked[0].startswith("srun codeczoo train image/titok_bl64_vq8k ")
    assert asked[0].endswith(f" --resume {last}") == (state == "begun")
    assert asked[1:] == (["scontrol requeue 77"] if state == "out of time" else [])


def test_slurm_export_script_is_a_script() -> None:
    (script,) = blocks("tutorials/slurm.md", "sh", "export.sbatch")
    if shutil.which("bash"):
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


# --- examples --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", TUTORIALS)
def test_examples_import_what_there_is(page: str) -> None:
    for code in blocks(page, "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("codeczoo"):
                for alias in node.names:
                    target(f"{node.module}.{alias.name}")


def run_examples(page: str) -> None:
    names: dict[str, Any] = {}
    for code in blocks(page, "python"):
        exec(compile(code, page, "exec"), names)


def keep(tree: dict[str, Any], recipe: str) -> None:
    """Weights of a small codec where a run of the recipe would have them."""
    torch.manual_seed(0)
    codeczoo.save(Path("runs") / recipe / "DATE" / "best.safetensors", codeczoo.build(tree).eval())


def picture(path: str) -> None:
    from codeczoo.io import image

    Path(path).parent.mkdir(exist_ok=True)
    image.write(path, torch.rand(3, 40, 50, generator=torch.Generator().manual_seed(0)))


def test_photos_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    size = {"image_size": 64, "patch": 16, "n_tokens": 32}
    tree = one_d_piece_tree()
    tree |= {part: tree[part] | size for part in ("encoder", "decoder")} | {"head": tree["head"] | {"patch": 16}}
    keep(tree, "one_d_piece_small")
    picture("photo.jpg")
    run_examples("tutorials/train_photos.md")
    assert len(list(tmp_path.glob("photo_*.png"))) == 4


def test_language_model_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    monkeypatch.chdir(tmp_path)
    keep(one_d_piece_tree(), "one_d_piece_small")
    for i in range(4):
        picture(f"photos/{i}.png")
    codec = ["--codec", "runs/one_d_piece_small/DATE"]
    assert main(["export", "photos", "-o", "store/val", *codec, "--format", "parquet"]) == 0
    *_, code = blocks("tutorials/export_lm.md", "python")
    exec(compile(code, "export_lm.md", "exec"), {})
    assert main(["decode", "samples", "-o", "pictures", *codec]) == 0
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 4


def test_stream_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("soundfile")
    pytest.importorskip("soxr")
    pytest.importorskip("av")
    from audio_cases import encodec, signal
    from test_hitvideo import tree

    from codeczoo.io import audio, video

    monkeypatch.chdir(tmp_path)
    keep(encodec(), "encodec_small")
    keep(tree("ResidualMerge"), "hitvideo_small")
    audio.write("speech.wav", signal(1, 5000)[0], 8000)
    with video.Writer("clip.mp4", 10) as file:
        file.append(torch.rand(3, 10, 32, 32, generator=torch.Generator().manual_seed(0)))
    run_examples("tutorials/stream.md")
    assert video.info("seen.mp4").frames == 13  # 10 frames, filled up to 1 + 4 n
    assert (audio.info("again.wav").frames, audio.info("heard.wav").frames) == (1500, 1512)  # the latter whole frames


def test_added_codec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two files of the page, trained for two steps, and its commands."""
    pytest.importorskip("lightning")
    pytest.importorskip("hydra")
    pytest.importorskip("pyarrow")
    import codeczoo.image

    page = "tutorials/add_a_codec.md"
    for language, title in (("python", "codecs/codeczoo/image/mosaic.py"), ("yaml", "recipes/image/mosaic_tiny.yaml")):
        (code,) = blocks(page, language, title)
        (tmp_path / title).parent.mkdir(parents=True)
        (tmp_path / title).write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(codeczoo.image, "__path__", [*codeczoo.image.__path__, str(tmp_path / "codecs/codeczoo/image")])
    picture("photos/a.png")
    short = ["trainer.max_steps=2", "trainer.val_check_interval=2", "data.workers=0", "data.batch_size=4"]
    try:
        for line in (line for found, line in COMMANDS if found == page):
            made = next(iter(Path("runs").glob("mosaic_tiny/*")), Path("none"))
            words = shlex.split(line.replace("runs/mosaic_tiny/DATE", str(made)), comments=True)[1:]
            assert main([*words, *(short if words[0] == "train" else [])]) == 0, line
        codec = codeczoo.load(made)
    finally:
        sys.modules.pop("codeczoo.image.mosaic", None)
    (recipe,) = blocks(page, "yaml")
    card = yaml.safe_load(recipe)["card"]
    assert card["params"] == sum(p.numel() for p in codec.parameters())
    (stream,) = codec.spec.streams
    units = stream.rate * 32**2
    assert (card["tokens"], card["bits"]) == (round(units), round(units * stream.bits_per_position))
    x = torch.rand(2, 3, 20, 33)
    tokens = codec.encode(x)
    assert tokens.codes.shape == (2, 1, 3, 5) and codec.decode(tokens).shape == x.shape
    assert (tmp_path / "pictures" / "a.png").is_file() and (tmp_path / "ids" / "header.json").is_file()
