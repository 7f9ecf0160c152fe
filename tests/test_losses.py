"""Loss terms: exact formulas, gradients, and that frozen networks are neither trained nor saved."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from codeczoo.core.base import Codec
from codeczoo.core.errors import InputError, MissingError, WeightsError
from codeczoo.core.types import Reconstruction, StreamSpec, Tokens, TokenSpec
from codeczoo.losses.base import Term
from codeczoo.losses.convnext import ConvNeXtLogits
from codeczoo.losses.frames import Frames
from codeczoo.losses.frozen import Frozen
from codeczoo.losses.lpips import LPIPS, LPIPSNetwork
from codeczoo.losses.pixel import L1, L2
from codeczoo.losses.proxy import ProxyCodes

SPEC = TokenSpec("image", "image", (StreamSpec((5,), ("row", "column"), (2, 2), 4.0),))


class Teacher(Codec):
    """Codes of 2x2 patches by their brightness; has a weight and a buffer, so that moving it can be seen."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = SPEC
        self.levels = nn.Parameter(torch.tensor(5.0))
        self.register_buffer("calls", torch.zeros(()))

    def encode(
        self, x: Tensor, *, n_positions: int | None = None, n_codebooks: int | None = None, n_streams: int | None = None
    ) -> Tokens:
        assert not torch.is_grad_enabled() and not self.training and not torch.is_autocast_enabled("cpu")
        bright = nn.functional.adaptive_avg_pool2d(x, 2).mean(1, keepdim=True)  # (B, 1, 2, 2)
        return self.tokens([(bright * self.levels).long().clamp(0, 4)], x)

    def decode(self, tokens: Tokens) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor, *, pixels: bool = True) -> Reconstruction:
        raise NotImplementedError


def made(x_hat: Tensor | None = None, logits: Tensor | None = None) -> Reconstruction:
    tokens = Tokens(SPEC, (torch.zeros(1, 1, 2, 2, dtype=torch.int64),), torch.tensor([[4, 4]]))
    return Reconstruction(tokens, x_hat=x_hat, logits=logits)


def lpips_files(folder: Path) -> tuple[Path, Path, Path]:
    """Random weights in the three accepted layouts: torchvision's VGG16, the heads alone, and lpips' own state dict."""
    torch.manual_seed(0)
    vgg, whole = {}, {}
    channels = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    places = {1: (0, 2), 2: (5, 7), 3: (10, 12, 14), 4: (17, 19, 21), 5: (24, 26, 28)}  # lpips' slice: torchvision's N
    numbered = [(stage, n) for stage, numbers in places.items() for n in numbers]
    for (stage, n), a, b in zip(numbered, channels[:-1], channels[1:], strict=True):
        vgg[f"features.{n}.weight"] = torch.randn(b, a, 3, 3) * (2 / (9 * a)) ** 0.5
        vgg[f"features.{n}.bias"] = 0.1 * torch.randn(b)
        for part in ("weight", "bias"):
            whole[f"net.slice{stage}.{n}.{part}"] = vgg[f"features.{n}.{part}"]
    heads = {f"lin{i}.model.1.weight": torch.rand(1, c, 1, 1) for i, c in enumerate((64, 128, 256, 512, 512))}
    whole |= heads | {f"lins.{k[3:]}": v for k, v in heads.items()} | {"scaling_layer.shift": torch.zeros(1, 3, 1, 1)}
    files = folder / "vgg16.pth", folder / "vgg.pth", folder / "whole.pth"
    for file, state in zip(files, (vgg | {"classifier.0.bias": torch.zeros(4)}, heads, whole), strict=True):
        torch.save(state, file)
    return files


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    return lpips_files(tmp_path_factory.mktemp("lpips"))


def test_pixel_terms_are_means() -> None:
    x, x_hat = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    x_hat[0, 0, 0, 0] = 0.5
    assert L1()(x, made(x_hat)).item() == pytest.approx(0.5 / 96)
    assert L2()(x, made(x_hat)).item() == pytest.approx(0.25 / 96)


@pytest.mark.parametrize("term", [L1(), L2()])
def test_terms_compute_in_float32_whatever_they_get(term: Term) -> None:
    x = torch.rand(1, 3, 8, 8)
    x_hat = torch.rand(1, 3, 8, 8).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = term(x, made(x_hat))
    assert value.dtype == torch.float32 and value.shape == ()
    torch.testing.assert_close(value, term(x, made(x_hat.float())), rtol=0, atol=0)


def test_a_term_says_what_the_codec_does_not_give() -> None:
    with pytest.raises(InputError, match="L1 reads x_hat"):
        L1()(torch.rand(1, 3, 4, 4), made())
    with pytest.raises(InputError, match="shape"):
        L1()(torch.rand(1, 3, 4, 4), made(torch.rand(1, 3, 4, 5)))
    with pytest.raises(InputError, match="ProxyCodes reads logits"):
        ProxyCodes(Teacher())(torch.rand(1, 3, 4, 4), made(torch.rand(1, 3, 4, 4)))


def test_frozen_is_moved_but_neither_trained_nor_saved() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    owner = nn.Module()
    owner.held = Frozen(net)
    owner.own = nn.Linear(2, 2)
    owner.train()
    assert set(owner.state_dict()) == {"own.weight", "own.bias"}
    assert len(list(owner.parameters())) == 2 and len(list(owner.buffers())) == 0
    assert not net.training and not any(p.requires_grad for p in net.parameters())
    weight = net.get_parameter("0.weight").detach().clone()
    owner.to(torch.bfloat16)  # a cast would round the network
    assert torch.equal(net.get_parameter("0.weight"), weight) and owner.own.weight.dtype == torch.bfloat16
    owner.to("meta")
    assert {t.device.type for t in (*net.parameters(), *net.buffers())} == {"meta"}


def test_lpips_layouts_agree_and_load_completely(files: tuple[Path, Path, Path]) -> None:
    vgg, heads, whole = files
    x, x_hat = torch.rand(2, 3, 32, 48), torch.rand(2, 3, 32, 48)
    a, b = (term(x, made(x_hat)) for term in (LPIPS(vgg, heads), LPIPS(whole)))
    assert a > 0.01
    torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert LPIPS(whole)(x, made(x)).item() == 0


def test_lpips_equals_torchmetrics(files: tuple[Path, Path, Path]) -> None:
    reference = pytest.importorskip("torchmetrics.functional.image.lpips", reason="torchmetrics is not installed")
    vgg, heads, whole = files
    net = reference._LPIPS(pretrained=False, net="vgg", pnet_rand=True)
    net.load_state_dict({k: v for k, v in torch.load(whole).items() if not k.startswith("scaling")}, strict=True)
    x, x_hat = torch.rand(2, 3, 32, 48), torch.rand(2, 3, 32, 48, requires_grad=True)
    theirs = net(x, x_hat, normalize=True).mean()
    ours = LPIPS(vgg, heads)(x, made(x_hat))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)
    for_ours, for_theirs = (torch.autograd.grad(value, x_hat)[0] for value in (ours, theirs))
    assert (for_ours - for_theirs).norm() < 1e-4 * for_theirs.norm()


def test_pretrained_terms_leave_no_trace_in_checkpoints(files: tuple[Path, Path, Path]) -> None:
    for term in (LPIPS(files[2]), ProxyCodes(Teacher())):
        assert not term.state_dict() and not list(term.parameters())


def test_missing_and_wrong_weights_say_what_to_do(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"no file nowhere\.pth.*torch\.save\(lpips\.LPIPS.*objective=plain"):
        LPIPS("nowhere.pth")
    with pytest.raises(MissingError, match=r"no path is given.*convnext_small\(.*objective=plain"):
        ConvNeXtLogits(None)
    with pytest.raises(WeightsError, match="heads"):
        LPIPS(files[0])  # VGG16 without its heads
    with pytest.raises(WeightsError):
        LPIPS(files[1])  # heads without VGG16
    (tmp_path / "broken.pth").write_bytes(b"no weights")
    with pytest.raises(WeightsError, match=r"broken\.pth"):
        LPIPS(tmp_path / "broken.pth")


def test_lpips_network_has_the_published_size() -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in LPIPSNetwork().parameters()) == 14_714_688 + 1_472


def test_convnext_compares_logits_of_resized_normalised_pictures(tmp_path: Path) -> None:
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    with torch.device("meta"):
        reference = models.convnext_small(weights=None).eval()
    reference.to_empty(device="cpu")
    for p in reference.parameters():
        nn.init.normal_(p, 0.5, 0.2) if p.ndim == 1 else nn.init.normal_(p, 0, p[0].numel() ** -0.5)
    torch.save(reference.state_dict(), tmp_path / "convnext.pth")
    term = ConvNeXtLogits(tmp_path / "convnext.pth")
    assert not term.state_dict() and not list(term.parameters())
    x, x_hat = torch.rand(1, 3, 256, 300), torch.rand(1, 3, 256, 300, requires_grad=True)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        sides = []
        for side in (x, x_hat):
            side = nn.functional.interpolate(side, (224, 224), mode="bilinear", antialias=True, align_corners=False)
            sides.append(reference((side - mean[:, None, None]) / std[:, None, None]))
    value = term(x, made(x_hat))
    torch.testing.assert_close(value.detach(), (sides[0] - sides[1]).square().mean())
    value.backward()
    assert x_hat.grad is not None and x_hat.grad.isfinite().all() and x_hat.grad.any()


def test_proxy_codes_is_the_cross_entropy_with_the_teachers_codes() -> None:
    x = torch.zeros(1, 3, 4, 4)
    x[:, :, :2, :2] = 0.9  # code 4 in the first patch, code 0 in the others
    logits = torch.zeros(1, 5, 2, 2, requires_grad=True)
    boosted = logits + torch.tensor([0.0, 0, 0, 0, 2.0])[None, :, None, None]  # 2 for code 4 everywhere
    term = ProxyCodes(Teacher())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = term(x, made(logits=boosted))
    total = torch.tensor(4 + torch.e**2).log()
    assert value.item() == pytest.approx((total - 2 + 3 * total).item() / 4, rel=1e-6)
    value.backward()
    assert logits.grad is not None and logits.grad.any()
    smooth = ProxyCodes(Teacher(), label_smoothing=0.1)(x, made(logits=boosted))
    assert smooth.item() == pytest.approx((0.9 * value + 0.1 * (total - 0.4)).item(), rel=1e-5)


def test_proxy_codes_wants_the_teachers_grid_and_vocabulary() -> None:
    for shape in ((1, 4, 2, 2), (1, 5, 3, 2), (1, 5, 4)):
        with pytest.raises(InputError, match="teacher's codes want logits"):
            ProxyCodes(Teacher())(torch.rand(1, 3, 4, 4), made(logits=torch.zeros(shape)))


def test_teacher_follows_the_objective_and_stays_out_of_it() -> None:
    teacher = Teacher().train()
    objective = nn.ModuleDict({"codes": ProxyCodes(teacher)})
    objective.train()
    assert not teacher.training and not teacher.levels.requires_grad
    assert not objective.state_dict() and not list(objective.parameters())
    objective.to("meta")
    assert teacher.levels.device.type == teacher.calls.device.type == "meta"


class Brightest(L1):
    """Keeps what it was given."""

    def compare(self, x: Tensor, x_hat: Tensor) -> Tensor:
        self.seen = x, x_hat
        return super().compare(x, x_hat)


def test_terms_of_pictures_see_the_same_random_frames_of_both_sides() -> None:
    x = torch.arange(2 * 6.0).view(2, 1, 6, 1, 1).expand(2, 3, 6, 4, 4) / 12  # each frame says which it is
    x_hat = (x + 0.01).requires_grad_()
    drawn = set()
    for _ in range(40):
        term = Brightest()
        value = Frames(term, 2)(x, made(x_hat))
        assert value.item() == pytest.approx(0.01, rel=1e-3) and term.seen[0].shape == (4, 3, 4, 4)
        torch.testing.assert_close(term.seen[1] - term.seen[0], torch.full((4, 3, 4, 4), 0.01))
        places = (term.seen[0][:, 0, 0, 0] * 12).round().int().tolist()
        assert all(place < 6 for place in places[:2]) and all(place >= 6 for place in places[2:])
        assert len(set(places)) == 4
        drawn |= set(places)
    assert drawn == set(range(12))
    value.backward()
    assert x_hat.grad is not None and x_hat.grad[:, 0, :, 0, 0].count_nonzero() == 4
    assert Frames(L1(), 9)(x, made(x_hat)).item() == pytest.approx(0.01, rel=1e-3)  # more than there are: all


def test_all_frames_are_the_pictures_one_by_one(tmp_path: Path) -> None:
    term = LPIPS(lpips_files(tmp_path)[2])
    x, x_hat = torch.rand(2, 1, 3, 2, 16, 16).unbind()
    wanted = torch.stack([term(x[:, :, t], made(x_hat[:, :, t])) for t in range(2)]).mean()
    torch.testing.assert_close(Frames(term)(x, made(x_hat)), wanted)
    assert Frames(term, 2).reads == {"x_hat"} and not list(Frames(term).parameters()) and not Frames(term).state_dict()
    drawn = [(torch.manual_seed(3), Frames(L1(), 1)(x, made(x_hat)))[1] for _ in range(2)]
    assert drawn[0] == drawn[1]
