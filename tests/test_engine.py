"""Training: what is stepped when, what is frozen and averaged, and that a resumed run is the uninterrupted one."""

import copy
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("lightning")
pytest.importorskip("hydra")

import codeczoo
from codeczoo.core.base import Adversary, Codec
from codeczoo.core.errors import CodeczooError, ConfigError, InputError
from codeczoo.engine import parts, schedule
from codeczoo.engine.checkpoints import Checkpoints
from codeczoo.engine.compose import compose
from codeczoo.engine.contest import AdaptiveWeight, Contest, FixedWeight, Weight
from codeczoo.engine.ema import EMA
from codeczoo.engine.objective import Objective
from codeczoo.engine.optimizer import adamw, muon, orthogonal
from codeczoo.engine.recorder import read_curve
from codeczoo.engine.run import Outcome, build_task, find_checkpoint, train
from codeczoo.engine.task import CodecTask
from codeczoo.engine.validation import PictureValidation
from codeczoo.losses.pixel import L1, L2
from codeczoo.quantizers.tally import update

SMALL = [
    "codec.encoder.image_size=16", "codec.encoder.width=16", "codec.decoder.width=16", "codec.encoder.depth=1",
    "codec.decoder.depth=1", "codec.encoder.n_tokens=4", "data.image_size=16", "data.batch_size=4", "data.n_val=8",
    "data.workers=0", "logger=none", "schedule.warmup=0", "schedule.steps=6", "trainer.max_steps=6",
    "trainer.val_check_interval=2", "trainer.log_every_n_steps=1", "run.checkpoint_every=100",
]
TREE = {
    "_target_": "codeczoo.image.one_d_piece.OneDPiece",
    "encoder": {
        "_target_": "codeczoo.backbones.vit1d.Encoder1D", "image_size": 16, "patch": 4, "width": 16, "depth": 1,
        "heads": 2, "n_tokens": 4, "dim": 4,
    },
    "quantizer": {"_target_": "codeczoo.quantizers.vq.CosineVQ", "vocab_size": 16, "dim": 4},
    "decoder": {
        "_target_": "codeczoo.backbones.vit1d.Decoder1D", "image_size": 16, "patch": 4, "width": 16, "depth": 1,
        "heads": 2, "n_tokens": 4, "dim": 4,
    },
    "head": {"_target_": "codeczoo.image.titok.PixelHead", "width": 16, "patch": 4},
}
WEIGHTS = {"l2": 1.0, "codebook": 1.0, "commitment": 0.25}


def run(recipe: str, out: Path, *overrides: str, resume: str | None = None) -> Outcome:
    """Trains a small version of a recipe."""
    return train(compose(f"image/{recipe}", [*SMALL, *overrides]), out, resume)


def checkpoint(outcome: Outcome) -> dict[str, Any]:
    """The whole last.ckpt."""
    return torch.load(outcome.folder / "last.ckpt", weights_only=True)


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    """Places where two nested structures differ in a single bit."""
    if isinstance(a, Tensor):
        return [] if torch.equal(a, b) else [where]
    if isinstance(a, dict):
        if a.keys() != b.keys():
            return [f"{where}: keys {a.keys() ^ b.keys()}"]
        return [d for key in a for d in differences(a[key], b[key], f"{where}.{key}")]
    if isinstance(a, list | tuple):
        return [d for i, (x, y) in enumerate(zip(a, b, strict=True)) for d in differences(x, y, f"{where}[{i}]")]
    return [] if a == b else [f"{where}: {a} {b}"]


# --- whole runs ------------------------------------------------------------------------------------------------------


def test_training_overfits_and_leaves_a_run_folder(tmp_path: Path) -> None:
    outcome = run(
        "one_d_piece_tiny", tmp_path, "data.n_train=4", "trainer.max_steps=80", "schedule.steps=80",
        "trainer.val_check_interval=40", "optimizer.lr=3e-3", "logger=csv", "task.ema=0.9",
    )
    loss = [value for _, name, value in read_curve(outcome.folder / "curve.csv") if name == "train/loss"]
    assert len(loss) == 80 and sum(loss[-10:]) < 0.7 * sum(loss[:10])
    names = {path.name for path in outcome.folder.iterdir()}
    assert names >= {"recipe.yaml", "version.txt", "last.ckpt", "last.safetensors", "best.safetensors"}
    assert names >= {"curve.csv", "curve.png", "csv"}
    assert [p.name for p in (outcome.folder / "pictures").iterdir()]
    validated = {name for _, name, _ in read_curve(outcome.folder / "curve.csv") if name.startswith("val/psnr")}
    assert validated == {"val/psnr", "val/psnr_1"}  # 4 tokens: a sixteenth and a quarter of them are one token
    again = compose(str(outcome.folder / "recipe.yaml"))
    assert again == compose("image/one_d_piece_tiny", [
        *SMALL, "data.n_train=4", "trainer.max_steps=80", "schedule.steps=80", "trainer.val_check_interval=40",
        "optimizer.lr=3e-3", "logger=csv", "task.ema=0.9",
    ])


def test_resume_after_ctrl_c_equals_the_uninterrupted_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Two-stage with a late adversary (LeCam's running means), accumulation, and One-D-Piece's random tail drop.
    overrides = [
        "codec._target_=codeczoo.image.one_d_piece.OneDPiece", "adversaries.blur.start=2", "task.accumulate=2",
        "codec.head.decoder.multipliers=[1,1,1]", "adversaries.blur.optimizer.lr=1e-3", "trainer.val_check_interval=4",
        "task.freeze=[encoder]", "run.checkpoint_every=2",
    ]
    whole = run("titok_tiny_stage2", tmp_path / "whole", *overrides)

    step = CodecTask.step

    def step_and_interrupt(task: CodecTask, contests: Any) -> None:
        step(task, contests)
        if task.global_step == 3:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(CodecTask, "step", step_and_interrupt)
    first = run("titok_tiny_stage2", tmp_path / "parts", *overrides)
    monkeypatch.setattr(CodecTask, "step", step)
    assert first.interrupted and first.step == 3
    second = run("titok_tiny_stage2", tmp_path / "parts", *overrides, resume="last")
    assert second.folder == first.folder and second.step == whole.step == 6 and not second.interrupted
    assert differences(checkpoint(whole), checkpoint(second)) == []
    assert codeczoo.load(whole.folder / "last.safetensors").spec == codeczoo.load(second.folder).spec


def test_accumulated_batches_equal_one_large_batch(tmp_path: Path) -> None:
    # eps 1 keeps Adam linear in small gradients, so that rounding is not blown up.
    shared = ["optimizer.eps=1.0", "optimizer.lr=0.1", "trainer.max_steps=3", "task.clip=0.5"]
    one = run("titok_tiny", tmp_path, *shared, "data.batch_size=8")
    two = run("titok_tiny", tmp_path, *shared, "task.accumulate=2")
    a, b = (codeczoo.load(o.folder / "last.safetensors").state_dict() for o in (one, two))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-6, msg=name)


# --- one module ------------------------------------------------------------------------------------------------------


class Judge(Adversary):
    """A discriminator with one weight that counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.calls = nn.Parameter(torch.ones(())), 0

    def adversary_loss(self, real: Tensor, fake: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        self.calls += 1
        assert not fake.requires_grad
        return self.scale * (fake.mean() - real.mean() - 1), {}

    def codec_loss(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        assert not self.scale.requires_grad, "the adversary must get no gradient from the codec's loss"
        return {"adversarial": self.scale * fake.mean()}


def small_task(**arguments: Any) -> CodecTask:
    """A task around the small codec, plain gradient descent."""
    codec: Codec = arguments.pop("codec", None) or codeczoo.build(TREE)
    given: dict[str, Any] = {
        "objective": Objective({"l2": L2()}, WEIGHTS), "optimizer": sgd, "schedule": schedule.constant,
        "validation": PictureValidation(codec.spec),
    }
    return CodecTask(codec, **(given | arguments))


def sgd(pairs: list[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
    return torch.optim.SGD(pairs, lr=0.1)


def contest(start: int, weight: Weight | None = None) -> Contest:
    return Contest(Judge(), sgd, schedule.constant, weight or FixedWeight(0.1), start)


def fit(task: CodecTask, steps: int, batch_size: int = 2, validate: bool = False) -> Any:
    """Trains on noise, the same whatever the batch size."""
    from lightning import Trainer

    noise = torch.rand(100, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    batches = torch.utils.data.DataLoader([{"x": x} for x in noise.split(batch_size)], batch_size=None)  # type: ignore[arg-type]
    trainer = Trainer(
        accelerator="cpu", max_steps=steps, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=int(validate), val_check_interval=1,
    )
    trainer.fit(task, batches, batches if validate else None)
    return trainer


def test_global_step_counts_effective_batches_and_adversaries_start_when_told() -> None:
    task = small_task(adversaries={"a": contest(0), "b": contest(3)}, accumulate=2)
    trainer = fit(task, 5)
    assert trainer.global_step == 5 and task.batches == 10
    a, b = task.adversaries["a"], task.adversaries["b"]
    assert (a.adversary.calls, b.adversary.calls) == (10, 4)  # b: batches 6..9
    steps = [s.last_epoch for s in task.lr_schedulers()]
    assert steps == [5, 5, 2]
    assert a.adversary.scale != 1 and b.adversary.scale != 1


def test_before_its_start_an_adversary_changes_nothing() -> None:
    torch.manual_seed(0)
    with_late = small_task(adversaries={"late": contest(99)})
    torch.manual_seed(0)
    without = small_task()
    fit(with_late, 3)
    fit(without, 3)
    assert differences(with_late.codec.state_dict(), without.codec.state_dict()) == []
    assert with_late.adversaries["late"].adversary.calls == 0


def test_adaptive_weight_is_the_ratio_of_gradient_norms() -> None:
    layer = nn.Parameter(torch.tensor([1.0, 2.0]))
    weight = AdaptiveWeight(0.5, limit=100)
    found = weight((layer * torch.tensor([3.0, 4.0])).sum(), layer[0] * 2, lambda: layer)
    assert found == pytest.approx(0.5 * 5 / 2, rel=1e-3)
    assert AdaptiveWeight(1.0, limit=100)(layer.sum(), layer.sum() * 1e-9, lambda: layer) == 100
    frozen = nn.Parameter(torch.ones(1), requires_grad=False)
    with pytest.raises(ConfigError, match="frozen"):
        weight(layer.sum(), layer.sum(), lambda: frozen)
    fit(small_task(adversaries={"a": contest(0, AdaptiveWeight(1.0))}), 2)


def test_frozen_parts_do_not_move_and_stay_in_evaluation_mode() -> None:
    codec = codeczoo.build(TREE)
    before = {name: value.clone() for name, value in codec.state_dict().items()}
    task = small_task(codec=codec, freeze=["encoder", "quantizer.codebook"], ema=0.5, clip=1.0)
    fit(task, 3)
    task.train()
    assert not codec.encoder.training and codec.decoder.training
    moved = {name.split(".")[0] for name, value in codec.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"decoder", "head"}
    assert task.ema is not None and not any("encoder" in name for name in task.ema.state_dict())
    with pytest.raises(ConfigError, match="did you mean encoder"):
        parts.freeze(codec, ["encodr"])
    with pytest.raises(ConfigError, match="nothing is left"):
        parts.freeze(codec, ["encoder", "decoder", "quantizer", "head"])


def test_gradient_norm_is_clipped() -> None:
    codec = codeczoo.build(TREE)
    before = torch.cat([p.detach().clone().flatten() for p in codec.parameters()])
    fit(small_task(codec=codec, clip=1e-3), 1)
    after = torch.cat([p.detach().flatten() for p in codec.parameters()])
    assert (after - before).norm() == pytest.approx(0.1 * 1e-3, rel=1e-2)  # lr times the greatest norm


def test_pixels_are_skipped_when_nothing_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = codeczoo.build(TREE)
    asked: list[bool] = []
    forward = codec.forward
    monkeypatch.setattr(codec, "forward", lambda x, *, pixels=True: asked.append(pixels) or forward(x, pixels=pixels))
    none_reads = Objective({}, {"codebook": 1.0, "commitment": 1.0})
    fit(small_task(codec=codec, objective=none_reads, adversaries={"a": contest(2)}), 4)
    assert asked == [False, False, True, True]


def test_checkpointing_changes_no_gradient_and_must_exist() -> None:
    weights = []
    for on in (False, True):
        torch.manual_seed(0)
        task = small_task(checkpointing=on)
        fit(task, 2)
        weights.append(task.codec.state_dict())
    for name in weights[0]:
        torch.testing.assert_close(weights[0][name], weights[1][name], rtol=1e-5, atol=1e-7)
    with pytest.raises(ConfigError, match="recompute"):
        parts.set_checkpointing(nn.Linear(1, 1))


EMAVQ = {
    "_target_": "codeczoo.quantizers.vq.EMAVQ", "vocab_size": 16, "dim": 4,
    "upkeep": {"_target_": "codeczoo.quantizers.upkeep.Restart", "vocab_size": 16, "every": 2},
}
STARTED = EMAVQ | {"start": {"_target_": "codeczoo.quantizers.kmeans.KMeans"}}
NO_CODEBOOK_LOSS = {"l2": 1.0, "commitment": 0.25}


def test_codebooks_learn_once_per_effective_batch() -> None:
    codecs = []
    for arguments, batch_size in (({"accumulate": 2}, 2), ({}, 4)):
        torch.manual_seed(0)
        codec = codeczoo.build(TREE | {"_target_": "codeczoo.image.titok.TiTok", "quantizer": EMAVQ})  # no tail drop
        before = codec.quantizer.codebook.clone()
        fit(small_task(codec=codec, objective=Objective({"l2": L2()}, NO_CODEBOOK_LOSS), **arguments), 4, batch_size)
        assert codec.quantizer.upkeep.steps == 4 and not torch.equal(codec.quantizer.codebook, before)
        codecs.append(codec)
    torch.testing.assert_close(codecs[0].state_dict(), codecs[1].state_dict(), rtol=1e-4, atol=1e-6)


def spread(codec: Codec) -> Codec:
    """With latents far from each other: as near as at the start, rounding decides which of them are one entry."""
    for p in codec.encoder.parameters():
        if p.ndim > 1:
            nn.init.normal_(p, std=0.15)
    return codec


@pytest.mark.parametrize("layers", [0, 3])
def test_codebooks_begin_from_training_data(layers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    residual = {"_target_": "codeczoo.quantizers.residual.Residual", "layers": [STARTED] * layers}
    codec = spread(codeczoo.build(TREE | {"quantizer": residual if layers else STARTED}))
    measured: list[bool] = []
    task = small_task(codec=codec, objective=Objective({"l2": L2()}, NO_CODEBOOK_LOSS), ema=0.9)
    measure = task.validation.measure
    monkeypatch.setattr(task.validation, "measure", lambda *given: measured.append(True) or measure(*given))
    fit(task, 5, 8, validate=True)  # with Lightning's sanity check, before any training data
    assert not parts.waiting(codec) and len(measured) == 5 - max(layers, 1) + 1
    for part in codec.quantizer.layers if layers else [codec.quantizer]:
        assert part.started and len(part.codebook.unique(dim=0)) == 16
    used = codec.quantizer.eval().encode(codec.encoder(torch.rand(16, 3, 16, 16)))[:, 0].unique()
    assert len(used) > 8, "entries lie where the latents are"


@pytest.mark.parametrize("layers", [0, 3])
def test_codebooks_begin_in_compiled_codecs(layers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    residual = {"_target_": "codeczoo.quantizers.residual.Residual", "layers": [STARTED] * layers}
    tree = TREE | {"_target_": "codeczoo.image.titok.TiTok", "quantizer": residual if layers else STARTED}
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    states = []
    for compiled in (False, True):
        torch.manual_seed(0)
        codec = spread(codeczoo.build(tree))
        fit(small_task(codec=codec, objective=Objective({"l2": L2()}, NO_CODEBOOK_LOSS), compile=compiled), 5, 8)
        assert not parts.waiting(codec)
        states.append(codec.state_dict())
    torch.testing.assert_close(*states, rtol=1e-4, atol=1e-5)


def test_quantizers_begin_from_the_latents_that_count() -> None:
    codec = codeczoo.build(TREE | {"quantizer": STARTED})
    z = torch.randn(2, 4, 30)
    valid = torch.arange(30) < torch.tensor([[20], [3]])
    tables = []
    for given, named in (((z, valid), {}), ((z,), {"valid": valid}), ((), {"z": z, "valid": valid})):
        quantizer = codeczoo.build(TREE | {"quantizer": STARTED}).quantizer
        codec.quantizer = quantizer
        with parts.starting_codebooks(codec):
            quantizer(*given, **named)
        tables.append(quantizer.codebook)
    alone = codeczoo.build(TREE | {"quantizer": STARTED}).quantizer
    alone.initialize(z.movedim(1, -1)[valid].t()[None])
    assert all(torch.allclose(table, alone.codebook) for table in tables)


def test_warm_start_takes_the_parts_it_names(tmp_path: Path) -> None:
    source, target = codeczoo.build(TREE), codeczoo.build(TREE)
    codeczoo.save(tmp_path / "source.safetensors", source)
    path = str(tmp_path / "source.safetensors")
    own_head = target.head.conv_out.weight.clone()
    parts.WarmStart(path, {"encoder": "encoder", "decoder": "decoder"}).apply(target)
    assert torch.equal(target.encoder.latent_tokens, source.encoder.latent_tokens)
    assert torch.equal(target.head.conv_out.weight, own_head)
    parts.WarmStart(path).apply(target)
    assert differences(target.state_dict(), source.state_dict()) == []
    with pytest.raises(CodeczooError, match="did you mean encoder"):
        parts.WarmStart(path, {"encoderr": "encoder"}).apply(target)
    with pytest.raises(CodeczooError, match="do not fit"):
        parts.WarmStart(path, {"encoder": "decoder"}).apply(target)


def test_training_goes_on_from_plain_codebooks(tmp_path: Path) -> None:
    layer = {"_target_": "codeczoo.quantizers.vq.VQ", "vocab_size": 16, "dim": 4}
    trees = [
        TREE | {"quantizer": {"_target_": "codeczoo.quantizers.residual.Residual", "layers": [one, one]}}
        for one in (layer, STARTED)
    ]
    source, target = (codeczoo.build(tree) for tree in trees)
    codeczoo.save(tmp_path / "source.safetensors", source)
    assert parts.waiting(target)
    parts.WarmStart(str(tmp_path / "source.safetensors")).apply(target)
    x = torch.rand(8, 3, 16, 16)
    assert not parts.waiting(target) and torch.equal(target.eval().encode(x).codes, source.eval().encode(x).codes)
    for a, b in zip(source.quantizer.layers, target.quantizer.layers, strict=True):
        torch.testing.assert_close(b.sums / b.counts[:, None], a.codebook)
    target.train().quantizer(torch.zeros(2, 4, 3))
    update(target)
    moved = (target.quantizer.layers[0].codebook - source.quantizer.layers[0].codebook).norm(dim=1)
    assert (moved > 1e-3).sum() == 1, "one step moves the one entry that it used, and a little"


# --- pieces ----------------------------------------------------------------------------------------------------------


def test_ema_warms_up_as_titoks_and_comes_back_after_errors() -> None:
    layer = nn.Linear(1, 1, bias=False)
    ema, shadow = EMA(layer, 0.5), 0.0
    for s in range(6):
        nn.init.constant_(layer.weight, float(s + 1))
        decay = 0.0 if s == 0 else min(0.5, (1 + s) / (10 + s))
        shadow = decay * shadow + (1 - decay) * (s + 1)
        ema.update()
        assert ema.shadows()[0].item() == pytest.approx(shadow)
    with pytest.raises(RuntimeError), ema.applied():
        assert layer.weight.item() == pytest.approx(shadow)
        raise RuntimeError
    assert layer.weight.item() == 6
    other = EMA(layer, 0.5)
    other.load_state_dict(ema.state_dict())
    assert other.shadows()[0].item() == pytest.approx(shadow)


def test_schedules() -> None:
    def rates(make: Any, *arguments: Any) -> list[float]:
        optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=2.0)
        scheduler, found = make(optimizer, *arguments), []
        for _ in range(9):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        return found

    assert rates(schedule.warmup_cosine, 2, 6, 0.1) == pytest.approx(
        [0, 1, 2, 0.2 + 1.8 * 0.853553, 1.1, 0.2 + 1.8 * 0.146447, 0.2, 0.2, 0.2], rel=1e-5
    )
    assert rates(schedule.constant, 4) == pytest.approx([0, 0.5, 1, 1.5, 2, 2, 2, 2, 2])
    assert rates(schedule.multi_step, [3, 5], 0.5) == pytest.approx([2, 2, 2, 1, 1, 0.5, 0.5, 0.5, 0.5])


def test_weight_decay_spares_what_it_should() -> None:
    codec = codeczoo.build(TREE)
    names = ["norm", "bias", "embed", "latent_tokens", "mask_token", "codebook", "gamma"]
    optimizer = adamw(codec.named_parameters(), 1e-3, weight_decay=0.1, no_decay_names=names, no_decay_below=2)
    decayed, spared = (set(group["param_names"]) for group in optimizer.param_groups)
    assert {"encoder.project.weight", "encoder.transformer.blocks.0.fc1.weight", "head.conv_out.weight"} <= decayed
    assert not any(name.endswith("bias") or "embedding" in name or "codebook" in name for name in decayed)
    assert decayed | spared == {name for name, _ in codec.named_parameters()}


@pytest.mark.parametrize("fast", [True, False])
def test_muon_is_in_bf16_where_that_is_fast(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codeczoo.engine.optimizer.bf16_is_fast", lambda device: fast)
    x = orthogonal(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)))
    assert x.dtype == torch.float32
    assert torch.equal(x, x.bfloat16().float()) == fast


def test_muon_makes_matrices_orthogonal_and_leaves_the_rest_to_adamw() -> None:
    torch.manual_seed(0)
    for shape in ((24, 8), (8, 24)):
        values = torch.linalg.svdvals(orthogonal(torch.randn(shape)))
        assert values.min() > 0.6 and values.max() < 1.3
    net = nn.ModuleDict({"transformer": nn.Linear(8, 24), "head": nn.Linear(8, 24)})
    twin = copy.deepcopy(net)
    both = muon(net.named_parameters(), 1e-2, matrix_lr=0.1, betas=(0.9, 0.95))
    assert [group["param_names"] for group in both.param_groups] == [
        ["transformer.bias", "head.weight", "head.bias"], ["transformer.weight"],
    ]  # fmt: skip
    plain = torch.optim.AdamW(twin.parameters(), 1e-2, betas=(0.9, 0.95), weight_decay=0.0)
    for _ in range(3):
        matrix = net["transformer"].weight.detach().clone()
        for p, q in zip(net.parameters(), twin.parameters(), strict=True):
            p.grad, q.grad = (torch.randn(p.shape) for _ in range(2))
            p.grad.copy_(q.grad)
        both.step()
        plain.step()
        moved = torch.linalg.svdvals(net["transformer"].weight - matrix) / (0.1 * 3**0.5)  # 3: rows a column
        assert moved.min() > 0.6 and moved.max() < 1.3
    for (name, p), q in zip(net.named_parameters(), twin.parameters(), strict=True):
        assert torch.equal(p, q) == (name != "transformer.weight")
    with pytest.raises(ConfigError, match="no matrix has a name with transformer"):
        muon(nn.Linear(2, 2).named_parameters(), 1e-2)


def test_muon_takes_weights_of_convolutions_as_matrices() -> None:
    conv, flat = nn.Conv2d(3, 8, 3, bias=False), nn.Linear(27, 8, bias=False)
    flat.weight.data.copy_(conv.weight.flatten(1))
    nets = [nn.ModuleDict({"conv": net}) for net in (conv, flat)]
    for _ in range(2):
        gradient = torch.randn(8, 27)
        for net, p in zip(nets, (conv.weight, flat.weight), strict=True):
            p.grad = gradient.reshape(p.shape).clone()
            muon(net.named_parameters(), 1e-2, matrix_names=["conv"]).step()
    torch.testing.assert_close(conv.weight.flatten(1), flat.weight)


def test_muon_goes_on_where_it_was() -> None:
    net = nn.ModuleDict({"transformer": nn.Linear(4, 4)})

    def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        model["transformer"](torch.ones(2, 4)).square().sum().backward()  # type: ignore[index]
        optimizer.step()
        optimizer.zero_grad()

    first = muon(net.named_parameters(), 1e-2)
    step(net, first)
    twin = copy.deepcopy(net)
    second = muon(twin.named_parameters(), 1e-2)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for _ in range(2):
        step(net, first)
        step(twin, second)
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.equal(p, q)


def test_objective_wants_one_weight_for_every_loss() -> None:
    codec = codeczoo.build(TREE)
    x = torch.rand(2, 3, 16, 16)
    reconstruction = codec(x)
    weights = {"l1": 0.5, "l2": 0.0, "codebook": 1.0, "commitment": 0.0}
    losses = Objective({"l1": L1(), "l2": L2()}, weights)(x, reconstruction)
    assert set(losses.values) == {"l1", "codebook", "commitment"}  # l2 weighs nothing and is not computed
    torch.testing.assert_close(losses.total, 0.5 * losses.values["l1"] + losses.values["codebook"])
    with pytest.raises(ConfigError, match="'l2' has no weight"):
        Objective({"l2": L2()}, {"codebook": 1.0})
    with pytest.raises(ConfigError, match="'commitment' has no weight"):
        Objective({"l2": L2()}, {"l2": 1.0, "codebook": 1.0})(x, reconstruction)
    with pytest.raises(ConfigError, match="did you mean commitment"):
        Objective({"l2": L2()}, {**WEIGHTS, "comitment": 1.0})(x, reconstruction)


@pytest.mark.parametrize(
    ("recipe", "overrides", "words"),
    [
        ("image/titok_tinny", [], ["titok_tiny"]),
        ("image/titok_tiny", ["trainer.max_step=3"], ["max_step", "max_steps"]),
        ("image/titok_tiny", ["codec.encoder.widht=3"], ["codec.encoder", "width"]),
        ("image/titok_tiny", ["dat=generated"], ["data"]),
        ("image/titok_tiny", ["data=generatd"], ["generated"]),
        ("image/titok_tiny", ["objective.weights.l2"], ["key=value"]),
        ("image/titok_tiny", ["+codec.encoder.depht=3"], ["depht", "depth"]),
        ("image/titok_tiny", ["codec.encoder._target_=codeczoo.backbones.vit1d.Encoder2D"], ["Encoder1D"]),
        ("image/titok_tiny", ["codec.encoder._target_=os.system"], ["codeczoo."]),
        ("image/titok_tiny", ["objective={"], ["objective={"]),
        ("nowhere.yaml", [], ["nowhere.yaml"]),
    ],
)
def test_misspelt_names_are_one_line_with_the_nearest(recipe: str, overrides: list[str], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(recipe, overrides)
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message


def test_overrides_reach_arguments_that_the_recipe_does_not_name() -> None:
    config = compose("image/titok_tiny", ["trainer.limit_val_batches=2", "~logger"])
    assert config["trainer"]["limit_val_batches"] == 2


def test_what_is_still_to_be_set_is_said_before_training(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"objective\.terms\.proxy\.teacher\.name_or_path=.*data\.root="):
        train(compose("image/titok_s128_stage1"), tmp_path)
    with pytest.raises(InputError, match="--resume last"):
        find_checkpoint(tmp_path, "last")
    assert list(tmp_path.iterdir()) == []


def test_monitor_and_sections_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="checkpoint_every"):
        Checkpoints(tmp_path, "", 0, "val/psnr")
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("defaults:\n  - image/titok_tiny\n  - _self_\nname: mine\nvalidatoin: {}\n")
    with pytest.raises(ConfigError, match="did you mean validation"):
        compose(str(recipe))
    recipe.write_text("defaults:\n  - image/titok_tiny\n  - _self_\nname: mine\noptimizer: {lr: 5.0e-4}\n")
    task = build_task(compose(str(recipe)))
    assert task.configure_optimizers()[0]["optimizer"].param_groups[0]["initial_lr"] == 5e-4
