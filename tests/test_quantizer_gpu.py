"""What GPUs get: a look-up in one Triton kernel, and steps that never wait for the device.

Without one, the kernel runs in Triton's interpreter (this file, started as a program) and is compiled for two kinds of
GPU, and the steps run on the meta device, where whatever needs a value raises.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from conftest import ROOT
from quantizer_cases import CASES, latents, mask, ready
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from codeczoo.core.base import Quantizer
from codeczoo.core.types import Quantized
from codeczoo.quantizers import lookup
from codeczoo.quantizers.lookup import highest, nearest
from codeczoo.quantizers.tally import update

SIZES = [(1, 1, 1), (3, 1000, 16), (64, 128, 32), (65, 129, 7), (70, 257, 33), (130, 300, 50), (0, 5, 3)]  # n, V, D
THROUGH_KERNEL = {"cosine ema": False, "shared mapping": False, "ibq": False, "vq gumbel": False, "residual 1": True}
SHARED_MEMORY = {80: 163, 90: 227}  # KB of a block, by compute capability

with_triton = pytest.mark.skipif(not lookup.TRITON, reason="Triton is not installed")
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def whole(shape: tuple[int, int], seed: int) -> Tensor:
    """Whole numbers, whose products are exact in any order: ties are ties everywhere."""
    return torch.randint(-3, 4, shape, generator=torch.Generator().manual_seed(seed)).float()


def odd(n: int, v: int, d: int) -> tuple[Tensor, Tensor]:
    """Latents and a table; some latents are no numbers or endless."""
    z = whole((n, d), 0)
    if n > 2:
        z[1], z[2], z[0, 0] = float("nan"), float("inf"), float("nan")
    return z, whole((v, d), 1)


def train(quantizer: Quantizer, forward: Callable[..., Quantized]) -> list[Tensor]:
    """A step without and one with a mask; all that comes of them."""
    z = latents("1d")
    found = one_step(quantizer, forward, z, None) + one_step(quantizer, forward, z + 0.1, mask("ragged", z))
    return [*found, *quantizer.state_dict().values()]


def one_step(quantizer: Quantizer, forward: Callable[..., Quantized], z: Tensor, valid: Tensor | None) -> list[Tensor]:
    """Forward, backward and update."""
    z = z.clone().requires_grad_()
    q = forward(z, valid)
    (q.z.sum() + sum(q.losses.values())).backward()
    update(quantizer)
    return [q.z.detach(), *q.streams, z.grad]


def in_interpreter() -> None:
    """Look-ups and quantizers that use them give what they give without the kernel."""
    from codeczoo.quantizers import lookup_triton

    plain_fuses = lookup.fuses
    for lookup_triton.PROGRAMS in (1, 1024):  # the table in one piece, in many
        for size in SIZES:
            z, table = odd(*size)
            bias = table.square().sum(1) / -2
            assert torch.equal(lookup_triton.highest(z, table, bias), nearest(z, table)), size
            assert torch.equal(lookup_triton.highest(z, table, torch.zeros_like(bias)), highest(z, table)), size
    for name, compiled in THROUGH_KERNEL.items():
        found = []
        for lookup.fuses in (plain_fuses, lambda z: True):
            torch.manual_seed(0)
            quantizer = ready(name).train()
            forward = torch.compile(quantizer, backend="aot_eager", fullgraph=True) if compiled else quantizer
            torch._dynamo.reset()
            found.append(train(quantizer, forward))
        torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)


@with_triton
def test_kernel_in_the_interpreter() -> None:
    paths = os.pathsep.join([str(ROOT / "codecs"), str(ROOT / "tests")])
    env = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, __file__], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@with_triton
@pytest.mark.parametrize("capability", SHARED_MEMORY)
@pytest.mark.parametrize("d", [6, 64, 300])
def test_kernel_compiles_for_real_gpus(capability: int, d: int) -> None:
    """Within their shared memory, in exact float32, and storing nothing else."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from codeczoo.quantizers import lookup_triton as ours

    pointers = {"z": "*fp32", "table": "*fp32", "bias": "*fp32", "scores": "*fp32", "index": "*i64"}
    constants = {
        "d": d, "tiles": 8, "tokens": ours.TOKENS, "entries": ours.ENTRIES, "channels": ours.channels_of_tile(d),
    }
    signature = pointers | {"n": "i32", "v": "i32"} | dict.fromkeys(constants, "constexpr")
    options = {"num_warps": ours.WARPS, "num_stages": ours.STAGES}
    made = triton.compile(ASTSource(ours._best, signature, constants), GPUTarget("cuda", capability, 32), options)
    assert made.metadata.shared <= SHARED_MEMORY[capability] * 1024
    assert "fma.rn.f32" in made.asm["ptx"] and "mma" not in made.asm["ptx"], "tensor cores would round to TF32"
    assert len(re.findall(r"st\.global", made.asm["ptx"])) <= 4, "of a row only its best score and index"


class Waits(TorchDispatchMode):
    """Fails where numbers go from one device to another."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        devices = {x.device.type for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor)}
        assert len(devices) < 2 or "copy" not in str(func), func
        return out


@pytest.mark.parametrize("name", CASES)
def test_no_step_waits_for_a_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it make a tensor of Python's numbers there, which copies too."""
    quantizer = ready(name).to("meta")
    z, valid = latents("2d").to("meta"), mask("ragged", latents("2d")).to("meta")
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # which knows no meta device
    for maker in ("tensor", "as_tensor", "from_numpy"):
        monkeypatch.setattr(torch, maker, partial(pytest.fail, f"torch.{maker} in a step"))
    with Waits():
        for given in (None, valid):
            one_step(quantizer, quantizer, z, given)


@with_triton
@gpu
@pytest.mark.gpu
@pytest.mark.parametrize("size", [*SIZES, (20000, 5000, 64)])
def test_kernel_on_a_gpu(size: tuple[int, int, int]) -> None:
    z, table = odd(*size)
    assert torch.equal(nearest(z.cuda(), table.cuda()).cpu(), nearest(z, table))


@with_triton
@gpu
@pytest.mark.gpu
def test_kernel_on_a_gpu_holds_no_scores() -> None:
    z, table = whole((65536, 32), 0).cuda(), whole((16384, 32), 1).cuda()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    nearest(z, table)
    assert torch.cuda.max_memory_allocated() - before < 1 << 24  # scores would be 4 GB


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
def test_no_step_waits_for_a_gpu(name: str) -> None:
    quantizer = ready(name).cuda()
    z, valid = latents("2d").cuda(), mask("ragged", latents("2d")).cuda()
    one_step(quantizer, quantizer, z, None)  # loads and compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        for given in (None, valid):
            one_step(quantizer, quantizer, z, given)
    finally:
        torch.cuda.set_sync_debug_mode("default")


if __name__ == "__main__":
    in_interpreter()
