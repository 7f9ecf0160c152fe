"""Adversaries: formulas worked out by hand, the order of LeCam's updates, who gets gradient, the published networks."""

import math
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor, nn

import codeczoo
from codeczoo.adversaries.blur import Blur, BlurDiscriminator
from codeczoo.adversaries.frames import FrameDiscriminator
from codeczoo.adversaries.logits import LogitAdversary
from codeczoo.adversaries.losses import Hinge, LeCam, NonSaturating
from codeczoo.adversaries.patchgan import PatchDiscriminator, batch_norm, group_norm, no_norm
from codeczoo.adversaries.patchgan3d import ClipDiscriminator
from codeczoo.core.base import Adversary
from codeczoo.core.errors import ConfigError, InputError

CONF = Path(__file__).resolve().parents[1] / "conf" / "adversary"


def tiny(lecam: LeCam | None = None, loss: Hinge | None = None) -> LogitAdversary:
    torch.manual_seed(0)
    return LogitAdversary(BlurDiscriminator(width=8, stages=2, groups=4, grid=4), loss or Hinge(), lecam)


def test_hinge() -> None:
    real, fake = torch.tensor([[3.0], [0.5]]), torch.tensor([[-2.0], [1.0]])
    assert Hinge().adversary(real, fake).item() == pytest.approx(0.5 * (0.25 + 1.0))  # relu(1-r) 0, .5; relu(1+f) 0, 2
    assert Hinge().codec(fake).item() == pytest.approx(0.5)


def test_non_saturating_averages_each_sample_before_the_softplus() -> None:
    fake = torch.tensor([[[[4.0, -2.0]]], [[[-3.0, 1.0]]]])  # means 1 and -1
    wanted = (math.log1p(math.exp(-1)) + math.log1p(math.exp(1))) / 2
    assert NonSaturating().codec(fake).item() == pytest.approx(wanted)
    assert NonSaturating().adversary(-fake, fake) == Hinge().adversary(-fake, fake)


def test_lecam_uses_the_old_running_means_and_updates_them_afterwards() -> None:
    lecam = LeCam(weight=2.0, decay=0.9)
    first = lecam(torch.tensor([[1.0, 3.0]]), torch.tensor([[-1.0, -2.0]]))  # means 2, -1.5; running 0, 0
    assert first.item() == pytest.approx(2 * (2.0**2 + 1.5**2))
    assert lecam.running.tolist() == pytest.approx([0.2, -0.15])
    second = lecam(torch.tensor([1.0]), torch.tensor([-1.0]))
    assert second.item() == pytest.approx(2 * ((1 + 0.15) ** 2 + (0.2 + 1) ** 2))
    assert lecam.running.tolist() == pytest.approx([0.9 * 0.2 + 0.1, -0.9 * 0.15 - 0.1])
    third = lecam(torch.tensor([-5.0]), torch.tensor([5.0]))  # both on the right side of the margins
    assert third.item() == 0


def test_lecam_survives_a_checkpoint_and_rests_in_evaluation() -> None:
    lecam = LeCam(weight=1.0)
    lecam(torch.ones(2), -torch.ones(2))
    other = LeCam(weight=1.0)
    other.load_state_dict(lecam.state_dict())
    assert torch.equal(other.running, lecam.running) and lecam.running[0].item() == pytest.approx(0.001)
    before = lecam.running.clone()
    lecam.eval()(torch.ones(2), -torch.ones(2))
    assert torch.equal(lecam.running, before)


def test_lecam_keeps_the_graph_of_several_losses() -> None:
    lecam, real = LeCam(weight=1.0, decay=0.5), torch.tensor([1.0], requires_grad=True)
    total = lecam(real, torch.tensor([-1.0])) + lecam(2 * real, torch.tensor([-1.0]))  # gradient accumulation
    total.backward()
    assert real.grad is not None and real.grad.item() == pytest.approx(2 * 1.0 + 2 * (2 + 0.5) * 2)


@pytest.mark.parametrize("loss", [Hinge(), NonSaturating()])
def test_gradients_go_to_the_right_side_only(loss: Hinge) -> None:
    adversary = tiny(LeCam(0.1), loss)
    real, fake = torch.rand(2, 3, 16, 16, requires_grad=True), torch.rand(2, 3, 16, 16, requires_grad=True)
    value, logs = adversary.adversary_loss(real, fake)
    value.backward()
    assert real.grad is None and fake.grad is None
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in adversary.parameters())
    assert set(logs) == {"logits_real", "logits_fake", "lecam"} and not any(v.requires_grad for v in logs.values())
    adversary.zero_grad()
    adversary.requires_grad_(False)
    losses = adversary.codec_loss(real, fake)
    assert set(losses) == {"adversarial"}
    losses["adversarial"].backward()
    assert fake.grad is not None and fake.grad.isfinite().all() and fake.grad.any()
    assert real.grad is None and all(p.grad is None for p in adversary.parameters())


def test_losses_are_float32_under_autocast() -> None:
    adversary, x = tiny(LeCam(0.1)), torch.rand(2, 3, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, _ = adversary.adversary_loss(x, x)
        codec = adversary.codec_loss(x, x)["adversarial"]
    assert value.dtype == codec.dtype == torch.float32


def test_training_tells_real_from_fake() -> None:
    adversary = tiny(LeCam(0.001))
    optimizer = torch.optim.Adam(adversary.parameters(), 1e-2)
    real, fake = torch.rand(4, 3, 16, 16), torch.rand(4, 3, 16, 16) * 0.2
    for _ in range(15):
        optimizer.zero_grad()
        value, logs = adversary.adversary_loss(real, fake)
        value.backward()
        optimizer.step()
    assert value < 0.5 and logs["logits_real"] > logs["logits_fake"] + 1


@pytest.mark.parametrize("size", [(4, 4), (5, 5), (6, 7), (1, 9), (2, 3)])
def test_blur_is_tensorflows_same(size: tuple[int, int]) -> None:
    """out = ceil(n / 2); padding max((out - 1) 2 + 4 - n, 0), the smaller half in front: written out by element."""
    x = torch.rand(1, 2, *size)
    taps = [1 / 8, 3 / 8, 3 / 8, 1 / 8]
    outs = [math.ceil(n / 2) for n in size]
    front = [max((out - 1) * 2 + 4 - n, 0) // 2 for out, n in zip(outs, size, strict=True)]
    wanted = torch.zeros(1, 2, *outs)
    for i in range(outs[0]):
        for j in range(outs[1]):
            for a in range(4):
                for b in range(4):
                    row, column = 2 * i - front[0] + a, 2 * j - front[1] + b
                    if 0 <= row < size[0] and 0 <= column < size[1]:
                        wanted[:, :, i, j] += taps[a] * taps[b] * x[:, :, row, column]
    torch.testing.assert_close(Blur()(x), wanted)


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_blur_discriminator_is_the_published_one() -> None:
    with torch.device("meta"):
        net = BlurDiscriminator()
        assert net(torch.empty(2, 3, 256, 256)).shape == (2, 1, 16, 16)
        assert net.blocks[2](torch.empty(1, 256, 64, 64)).shape == (1, 512, 32, 32)
    # conv5 3-128; conv3 128-128, 128-256, 256-512 with a norm each; conv1 512-512; conv5 512-1
    sizes = [128 * 76, 128 * 1153 + 256, 256 * 1153 + 512, 512 * 2305 + 1024, 512 * 513, 12801]
    assert parameters(net) == sum(sizes)
    names = set(net.state_dict())
    assert {"block_in.0.weight", "blocks.0.1.kernel", "blocks.2.2.bias", "to_logits.2.weight"} <= names
    with pytest.raises(InputError, match=r"\(B, 3, H, W\)"):
        net(torch.empty(2, 1, 8, 8))
    with pytest.raises(ConfigError, match="groups"):
        BlurDiscriminator(width=8)


def test_patch_discriminator_is_the_published_one() -> None:
    with torch.device("meta"):
        net = PatchDiscriminator()
        assert net(torch.empty(1, 3, 256, 256)).shape == (1, 1, 30, 30)
    assert parameters(net) == 2_768_705 - 3 * 64 * 16  # pix2pix's, which has three more channels to condition on
    names = list(net.state_dict())
    assert names[0] == "main.0.weight" and "main.2.bias" not in names and names[-1] == "main.11.bias"
    with pytest.raises(InputError, match="at least 24"):
        PatchDiscriminator()(torch.rand(1, 3, 16, 16))


@pytest.mark.parametrize("norm", [batch_norm, group_norm, no_norm])
def test_patch_discriminator_sees_plus_minus_one_and_takes_any_norm(norm: object) -> None:
    torch.manual_seed(0)
    net = PatchDiscriminator(width=32, layers=2, norm=norm).eval()  # type: ignore[arg-type]
    x = torch.rand(2, 3, 16, 24)
    assert net(x).shape == (2, 1, 2, 4)
    torch.testing.assert_close(net(x), net.main(x * 2 - 1))
    torch.testing.assert_close(net(x)[:1], net(x[:1]))
    assert (net.main[2].bias is None) == (norm is batch_norm)


# --- clips -----------------------------------------------------------------------------------------------------------


def test_frames_of_clips_are_judged_as_pictures() -> None:
    torch.manual_seed(0)
    pictures = PatchDiscriminator(width=32, layers=2, norm=group_norm)
    x = torch.rand(2, 3, 5, 16, 24)
    wanted = torch.cat([pictures(x[:, :, t]) for t in range(5)]).view(5, 2, 1, 2, 4).transpose(0, 1).flatten(0, 1)
    torch.testing.assert_close(FrameDiscriminator(pictures)(x), wanted)
    some = FrameDiscriminator(pictures, frames=2)
    assert some(x).shape == (4, 1, 2, 4) and some(x[:, :, :1]).shape == (2, 1, 2, 4)
    seen = {tuple(int((row - wanted).abs().flatten(1).sum(1).argmin()) for row in some(x)) for _ in range(30)}
    assert all(a < 5 and b < 5 <= c and d >= 5 and a != b and c != d for a, b, c, d in seen)  # two of each clip
    assert {number for one in seen for number in one} == set(range(10))
    with pytest.raises(InputError, match=r"\(B, C, T, H, W\)"):
        some(x[:, :, 0])


@pytest.mark.parametrize("norm", [group_norm, no_norm])
def test_clips_are_judged_one_by_one_whatever_their_length(norm: object) -> None:
    torch.manual_seed(0)
    net = ClipDiscriminator(width=32, layers=3, norm=norm)  # type: ignore[arg-type]
    x = torch.rand(2, 3, 17, 24, 32)
    assert net(x).shape == (2, 1, 3, 1, 2) and net(x[:, :, :9]).shape[2] == 2 and net(x[:, :, :1]).shape[2] == 1
    torch.testing.assert_close(net(x)[1:], net(x[1:]), rtol=1e-4, atol=1e-5)  # nothing passes between clips
    turned = x.flip(2)
    assert not torch.allclose(net(turned).flip(2), net(x), atol=1e-4), "it sees the direction of time"
    with torch.device("meta"):
        published = ClipDiscriminator()
    # 3 x 4 x 4 kernels: 3-64, 64-128, 128-256, 256-512, 512-1 with biases, and three norms
    kernel = 3 * 4 * 4
    sizes = [(a * kernel + 1) * b for a, b in ((3, 64), (64, 128), (128, 256), (256, 512), (512, 1))]
    assert parameters(published) == sum(sizes) + 2 * (128 + 256 + 512)
    deviation = ClipDiscriminator(width=32, layers=2).main[2].weight.std()
    assert abs(float(deviation.detach()) - 0.02) < 2e-3
    with pytest.raises(InputError, match="at least 24 pixels a side"):
        net(torch.rand(1, 3, 5, 16, 32))
    with pytest.raises(ConfigError, match="1 or more"):
        ClipDiscriminator(layers=0)


@pytest.mark.parametrize("file", sorted(CONF.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_shipped_adversary_that_sees_builds_and_plays(file: Path) -> None:
    if "channels" in yaml.safe_load(file.read_text()).get("discriminators", {}):
        pytest.skip("of sounds: see test_audio_adversaries.py")
    adversary = codeczoo.build(yaml.safe_load(file.read_text()))
    assert isinstance(adversary, Adversary)
    video = file.stem in ("patchgan_frames", "patchgan_clips")
    real, fake = torch.rand(2, 1, 3, *[5] * video, 32, 32).unbind()
    value: Tensor = adversary.adversary_loss(real, fake)[0] + adversary.codec_loss(real, fake)["adversarial"]
    assert value.shape == () and value.isfinite()
