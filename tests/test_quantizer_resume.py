"""P8: training that was saved to a file and goes on in a new process is the uninterrupted training, bit for bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from quantizer_cases import CASES, built, latents, spread
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from codeczoo.core.errors import InputError
from codeczoo.quantizers.tally import update

STARTING = [name for name in CASES if built(name).starting]


class Training:
    """An encoder, a quantizer and their optimizer."""

    def __init__(self, name: str, seed: int) -> None:
        quantizer = built(name, seed=seed)
        if not quantizer.starting:
            spread(quantizer)
        self.net = nn.ModuleDict({"encoder": nn.Linear(quantizer.dim, quantizer.dim), "quantizer": quantizer})
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.05, momentum=0.9)

    def run(self, first: int, last: int) -> dict[str, Tensor]:
        """Steps first..last-1, whose batches and random numbers follow from their numbers; the losses of the last."""
        quantizer = self.net["quantizer"]
        for step in range(first, last):
            torch.manual_seed(step)
            z = self.net["encoder"](latents((20, quantizer.dim), seed=step)).t()[None]
            if quantizer.starting:
                quantizer.initialize(z)
            q = quantizer(z)
            (q.z.square().mean() + sum(q.losses.values())).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            update(quantizer)
        return q.losses

    def save(self, file: Path) -> dict[str, Any]:
        """The module goes into a file; the optimizer's state is returned."""
        save_file(self.net.state_dict(), file)
        return self.optimizer.state_dict()

    def load(self, file: Path, optimizer: dict[str, Any]) -> None:
        """What `save` saved."""
        self.net.load_state_dict(load_file(file))
        self.optimizer.load_state_dict(optimizer)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("cut", [1, 2, 4])  # 1, 2: before all layers of residual quantizers have started
def test_p8_resumed_equals_uninterrupted(name: str, cut: int, tmp_path: Path) -> None:
    whole, before, after = Training(name, 0), Training(name, 0), Training(name, 1)
    expected = whole.run(0, 5)
    before.run(0, cut)
    after.load(tmp_path / "state.safetensors", before.save(tmp_path / "state.safetensors"))
    assert after.net["quantizer"].starting == before.net["quantizer"].starting
    losses = after.run(cut, 5)
    a, b = whole.net.state_dict(), after.net.state_dict()
    assert a.keys() == b.keys() and [key for key in a if not torch.equal(a[key], b[key])] == []
    assert losses.keys() == expected.keys() and all(torch.equal(losses[key], expected[key]) for key in losses)
    z = latents("1d")[:, : after.net["quantizer"].dim]
    assert torch.equal(after.net["quantizer"].eval().encode(z), whole.net["quantizer"].eval().encode(z))


@pytest.mark.parametrize("name", STARTING)
def test_p8_nothing_works_before_the_start(name: str, tmp_path: Path) -> None:
    first = Training(name, 0)
    again = Training(name, 1)
    again.load(tmp_path / "state.safetensors", first.save(tmp_path / "state.safetensors"))
    quantizer = again.net["quantizer"]
    z = latents((1, quantizer.dim, 30))
    before = {key: value.clone() for key, value in quantizer.state_dict().items()}
    assert quantizer.starting
    for work in (quantizer.eval(), quantizer.encode):
        with pytest.raises(InputError, match="starts from data"):
            work(z)
    assert all(torch.equal(value, before[key]) for key, value in quantizer.state_dict().items())
    while quantizer.starting:
        quantizer.initialize(z)
    table = {key: value.clone() for key, value in quantizer.state_dict().items()}
    quantizer.initialize(latents((1, quantizer.dim, 30), seed=1))  # once is enough
    assert all(torch.equal(value, table[key]) for key, value in quantizer.state_dict().items())
    assert quantizer.encode(z).shape[1] == len(quantizer.vocab_sizes)
