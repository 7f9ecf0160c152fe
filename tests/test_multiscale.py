"""What test_quantizer_*.py says of single streams, of multi-scale quantizers, whose codes are several."""

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_composite_quantizers import NESTED, SCALED, built, latents, same, total
from torch import Tensor, nn
from torch.export import Dim, export

from codeczoo.core.base import Quantizer
from codeczoo.quantizers.tally import update

every_case = pytest.mark.parametrize("name", SCALED)


def state(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


def step(quantizer: Quantizer, z: Tensor, valid: Tensor | None = None) -> list[Tensor]:
    """Start where it is waited for, forward, backward and update; value, gradient, losses."""
    given = z.clone().requires_grad_()
    if quantizer.starting:
        quantizer.initialize(given, valid)
    q = quantizer(given, valid)
    (q.z.float().sum() + total(q.losses)).backward()
    update(quantizer)
    return [q.z.detach(), given.grad, *q.losses.values()]


@pytest.mark.parametrize("name", ["1d", "2d", "3d"])
@pytest.mark.parametrize("cut", [1, 2])
def test_p8_resumed_equals_uninterrupted(name: str, cut: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole, again = NESTED[name](), NESTED[name]()
    for number in range(4):
        if number == cut:
            save_file(state(whole), tmp_path / "state.safetensors")
            again.load_state_dict(load_file(tmp_path / "state.safetensors"))
        z, found = latents(whole, number, 12), []
        for quantizer in (whole, again) if number >= cut else (whole,):
            torch.manual_seed(number)
            found.append(step(quantizer, z))
    assert same(*found) and same(list(state(whole).values()), list(state(again).values()))


@every_case
def test_p13_p15_evaluation_draws_nothing_changes_nothing_and_stays_float32(name: str) -> None:
    quantizer = built(name).eval()
    z, before, found = latents(quantizer).bfloat16(), state(quantizer), []
    for convert in (nn.Module.half, nn.Module.bfloat16, nn.Module.double):
        convert(quantizer)
        generator = torch.get_rng_state()
        found.append([quantizer(z).z, *quantizer.encode(z)])
        assert torch.equal(torch.get_rng_state(), generator) and same(found[-1][1:], quantizer.encode(z.float()))
        update(quantizer)
    assert same(found[0], found[1]) and same(found[0], found[2])
    assert same(list(before.values()), list(state(quantizer).values()))


@pytest.mark.parametrize("kind", ["1e-4", "1e4", "zeros", "constant", "no row"])
@every_case
def test_p18_losses_gradients_and_state_stay_finite(name: str, kind: str) -> None:
    quantizer = built(name)
    z = latents(quantizer)
    z = {"1e-4": z * 1e-4, "1e4": z * 1e4, "zeros": z * 0, "constant": z * 0 + 0.7, "no row": z[:0]}[kind]
    for _ in range(3):
        assert all(value.isfinite().all() for value in step(quantizer, z))
        assert all(value.isfinite().all() for value in quantizer.state_dict().values())


class Method(nn.Module):
    """A method of a quantizer as the forward of a module, which is what can be exported."""

    def __init__(self, quantizer: Quantizer, name: str) -> None:
        super().__init__()
        self.quantizer, self.name = quantizer, name

    def forward(self, x: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...] | Tensor:
        return getattr(self.quantizer, self.name)(x)


@pytest.mark.parametrize("name", ["var", "scales 1d", "scales residual"])
def test_p20_programs_of_any_batch(name: str) -> None:
    quantizer = built(name).eval()
    z, batch = latents(quantizer), {0: Dim.DYNAMIC}
    codes = quantizer.encode(z)
    encode = export(Method(quantizer, "encode"), (z,), dynamic_shapes=(batch,))
    decode = export(Method(quantizer, "decode"), (codes,), dynamic_shapes=(tuple(batch for _ in codes),))
    other = latents(quantizer, 5, batch=7)
    found = encode.module()(other)
    assert same(found, quantizer.encode(other)) and torch.equal(decode.module()(found), quantizer.decode(found))


@every_case
def test_no_step_waits_for_a_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the meta device whatever needs a value raises."""
    quantizer = built(name).to("meta")
    z = latents(quantizer).to("meta")
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # which knows no meta device
    for valid in (None, torch.ones(z.shape[:1] + z.shape[2:], dtype=torch.bool, device="meta")):
        step(quantizer, z, valid)
