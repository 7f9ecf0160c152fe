"""FSDP of every kind of codec that is trained in several parts: forward, backward, encode and decode as unsharded."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import distributed

pytest.importorskip("lightning")
pytest.importorskip("hydra")

from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor

import codeczoo
from codeczoo.core.errors import ConfigError
from codeczoo.engine.compose import compose, recipes
from codeczoo.engine.sharding import forget_gathered, shard, whole

VIDEO = [name for name in recipes() if name.startswith("video/") and name.endswith("_tiny")]
SHAPES = {"image": (3, 32, 32), "audio": (1, 4000), "video": (3, 5, 32, 32)}


@pytest.fixture
def mesh() -> Iterator[DeviceMesh]:
    """One process, which shards over itself: who gathers what when is the same as with many."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


def without(tree: Any, *keys: str) -> Any:
    """A tree without some keys."""
    if isinstance(tree, list):
        return [without(branch, *keys) for branch in tree]
    return {k: without(v, *keys) for k, v in tree.items() if k not in keys} if isinstance(tree, dict) else tree


@pytest.mark.parametrize("name", [*VIDEO, "audio/dac_tiny", "image/maskgit_vqgan_tiny", "image/flextok_tiny"])
def test_a_sharded_codec_is_the_codec(name: str, mesh: DeviceMesh) -> None:
    torch.manual_seed(0)
    codec = codeczoo.build(without(compose(name)["codec"], "upkeep", "start"))  # for rules see below
    for p in codec.parameters():
        if not p.any():  # a start with zeros hides what comes before it
            torch.nn.init.normal_(p, std=0.1)
    x = torch.rand(2, *SHAPES[codec.spec.media])

    def step() -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]:
        codec.zero_grad()
        torch.manual_seed(1)
        reconstruction = codec.train()(x)
        (reconstruction.x_hat.square().mean() + sum(reconstruction.losses.values())).backward()
        grads = [p.grad.full_tensor() if isinstance(p.grad, DTensor) else p.grad for p in codec.parameters()]
        forget_gathered(codec)
        with torch.no_grad():
            decoded = codec.eval().decode(codec.encode(x))
        return reconstruction.x_hat.detach(), [g.clone() for g in grads if g is not None], decoded

    wanted = step()
    shard(codec, mesh)
    found = step()
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[2], wanted[2], rtol=1e-4, atol=1e-5)
    for a, b in zip(found[1], wanted[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)
    forget_gathered(codec)
    assert all(isinstance(p, DTensor) for p in codec.parameters())
    assert not any(isinstance(p, DTensor) for p in whole(codec).parameters())


def test_codebooks_that_are_moved_by_rules_are_refused(mesh: DeviceMesh) -> None:
    codec = codeczoo.build(compose("video/vqvae2_tiny")["codec"])
    with pytest.raises(ConfigError, match="Restart moves a codebook"):
        shard(codec, mesh)
