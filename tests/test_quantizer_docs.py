"""docs/quantizers.md: its examples run, and it names every quantizer there is."""

import inspect
import re
from importlib import import_module

import pytest
import torch
from conftest import ROOT

from codeczoo.core.base import Quantizer
from codeczoo.quantizers import originals

PAGE = (ROOT / "docs" / "quantizers.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
MODULES = sorted((ROOT / "codecs" / "codeczoo" / "quantizers").glob("[a-z]*.py"))


@pytest.mark.parametrize("code", EXAMPLES, ids=lambda code: code.split("import ")[1].split("\n")[0])
def test_example_runs(code: str) -> None:
    torch.manual_seed(0)
    exec(compile(code, "docs/quantizers.md", "exec"), {"torch": torch, "z": torch.randn(2, 16, 100)})


def test_every_quantizer_is_in_the_table() -> None:
    rows = "\n".join(line for line in PAGE.splitlines() if line.startswith("|"))
    missing = []
    for path in MODULES:
        for name, found in inspect.getmembers(import_module(f"codeczoo.quantizers.{path.stem}"), inspect.isclass):
            public = found.__module__.endswith(f".{path.stem}") and not name.startswith("_")
            base = inspect.isabstract(found) or (found.__doc__ or "").startswith("Base")
            usable = issubclass(found, Quantizer) and not base
            if public and usable and not re.search(rf"`{name}\b.*\({path.stem}\)|`{name}`.*{path.stem}", rows):
                missing.append(f"{path.stem}.{name}")
    assert not missing


def test_every_layout_is_in_the_table() -> None:
    named = PAGE.replace("`..._cosine`", "`vector_quantize_pytorch_cosine`")
    assert [name for name in originals.LAYOUTS if f"`{name}`" not in named] == []
