"""The one LightningModule: any codec, any objective, any number of adversaries."""

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from lightning import LightningModule
from lightning.pytorch.strategies import ParallelStrategy
from torch import Tensor, nn
from torch.optim import Optimizer

from codeczoo.core.base import Autoencoder
from codeczoo.core.errors import ConfigError
from codeczoo.core.types import Reconstruction
from codeczoo.engine import parts
from codeczoo.engine.balancer import Balancer
from codeczoo.engine.contest import Contest
from codeczoo.engine.ema import EMA
from codeczoo.engine.objective import Losses, Objective, weighted_sum
from codeczoo.engine.optimizer import OptimizerFactory, ScheduleFactory
from codeczoo.engine.sharding import ShardedStrategy, forget_gathered, shard
from codeczoo.engine.validation import Validation
from codeczoo.quantizers.tally import update as update_codebooks


class CodecTask(LightningModule):
    """Trains a codec. `global_step` counts effective batches: one step of the codec's optimizer each.

    Codec and adversaries learn from the same forward pass. Randomness inside a batch depends on seed, batch number and
    rank alone, so a resumed run continues bit for bit.

    Args:
        codec: what is trained.
        objective: what it minimises.
        optimizer: takes (name, parameter) pairs.
        schedule: takes the optimizer; its steps are effective batches.
        validation: what is measured on validation batches.
        adversaries: by name.
        balancer: makes weights of the losses of x_hat, adversaries' included, shares of its gradient; None: factors.
        ema: decay of the average of the weights that is validated and saved, 0..1; None: the weights themselves.
        clip: greatest gradient norm, of the codec and of each adversary; None: no limit.
        accumulate: batches of the data module that make one effective batch.
        freeze: names of the codec's parts that stay as they are.
        warm_start: weights to begin with, by a name of one's own; later ones win.
        checkpointing: recompute activations in backward: less memory, more time.
        compile: pass the codec through torch.compile.
        seed: of the randomness within training batches.
    """

    def __init__(
        self,
        codec: Autoencoder,
        objective: Objective,
        optimizer: OptimizerFactory,
        schedule: ScheduleFactory,
        validation: Validation,
        adversaries: Mapping[str, Contest] | None = None,
        balancer: Balancer | None = None,
        ema: float | None = None,
        clip: float | None = None,
        accumulate: int = 1,
        freeze: Sequence[str] = (),
        warm_start: Mapping[str, parts.WarmStart] | None = None,
        checkpointing: bool = False,
        compile: bool = False,  # noqa: A002
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        if accumulate < 1:
            raise ConfigError(f"accumulate must be at least 1, got {accumulate}")
        self.codec, self.objective, self.validation = codec.train(), objective, validation
        self.optimizer, self.schedule = optimizer, schedule
        self.clip, self.accumulate, self.seed = clip, accumulate, seed
        self.adversaries = nn.ModuleDict(adversaries or {})
        self.balancer = balancer
        if balancer is not None:
            balancer.name_losses(self.media)
        for start in (warm_start or {}).values():
            start.apply(codec)
        self.frozen = parts.freeze(codec, freeze)
        self.ema: EMA | None = None
        self.ema_decay, self.configured = ema, False
        if checkpointing:
            parts.set_checkpointing(codec)
        if compile:
            codec.compile()
        self.batches = 0  # batches of the data module so far, on each rank
        self.conditions = [n for n in inspect.signature(codec.forward).parameters if n not in ("x", "pixels")]

    def configure_model(self) -> None:
        """Shards the codec where the strategy wants it, then begins the average of its weights."""
        if self.configured:  # Lightning may ask again
            return
        self.configured = True
        if isinstance(self.trainer.strategy, ShardedStrategy):
            shard(self.codec, self.trainer.strategy.device_mesh["data_parallel"])
        if self.ema_decay is not None:
            self.ema = EMA(self.codec, self.ema_decay)
        # DDP waits for the gradient of every parameter it watches, in every backward. Adversaries have their own
        # backward and are idle before their start, so their gradients are averaged in `Contest.average_gradients`.
        apart = ("adversaries.", "ema.", "balancer.")
        self._ddp_params_and_buffers_to_ignore = [name for name in self.state_dict() if name.startswith(apart)]

    # --- one batch ---------------------------------------------------------------------------------------------------

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> dict[str, Any]:
        """One batch; every `accumulate`-th also steps the optimizers. Gives detached values and codes, to log."""
        self.reseed()
        x = batch["x"]
        contests = self.active()
        pixels = bool(contests) or "x_hat" in self.objective.reads
        given = {name: batch[name] for name in self.conditions if name in batch}
        with parts.starting_codebooks(self.codec):
            reconstruction = self.codec(x, pixels=pixels, **given)
        if self.balancer is not None and reconstruction.x_hat is not None:
            reconstruction.x_hat = reconstruction.x_hat.float()  # where gradients are measured
        losses: Losses = self.objective(x, reconstruction)
        media, values = dict(losses.media), losses.values
        for name, contest in contests.items():
            found = contest.codec_losses(x, reconstruction.x_hat, weighted_sum(losses.media), self.codec.last_layer)
            media |= {f"{name}.{key}": loss for key, loss in found.items()}
            values |= {f"{name}.{key}": loss.value.detach() for key, loss in found.items()}
            values[f"{name}.weight"] = torch.as_tensor(found["adversarial"].weight)
        total = losses.own + weighted_sum(media)
        values["loss"] = total.detach()
        if self.balancer is not None and media:
            total = losses.own + self.balancer(media, reconstruction.x_hat)

        stepping = (self.batches + 1) % self.accumulate == 0
        with self._gradients_meet(stepping):
            self.manual_backward(total / self.accumulate)
        learning = {name: c for name, c in contests.items() if c.learns(self.seed, self.global_step)}
        for name, contest in learning.items():
            loss, more = contest.adversary.adversary_loss(x, reconstruction.x_hat.detach())
            with self._gradients_meet(False):
                self.manual_backward(loss / self.accumulate)
            values |= {f"{name}.loss": loss.detach()} | {f"{name}.{key}": value for key, value in more.items()}
        if stepping:
            self.step(learning)
        self.batches += 1
        codes = () if reconstruction.tokens is None else reconstruction.tokens.streams
        return {"values": values | self._pixel_error(x, reconstruction), "codes": codes}

    @property
    def media(self) -> list[str]:
        """Names of all losses of x_hat."""
        contests: Iterable[tuple[str, Any]] = self.adversaries.items()
        return self.objective.media + [f"{name}.{key}" for name, contest in contests for key in contest.media]

    def active(self) -> dict[str, Contest]:
        """The adversaries that take part in this batch."""
        return {n: c for n, c in self.adversaries.items() if self.global_step >= c.start}  # type: ignore[operator,misc]

    def reseed(self) -> None:
        """Makes what is drawn in this batch independent of everything before it."""
        key = np.random.SeedSequence([self.seed, self.batches, self.global_rank])
        torch.manual_seed(int(key.generate_state(1)[0]))

    def _gradients_meet(self, on: bool) -> Any:
        """Whether DDP or FSDP averages the gradients of this backward over the ranks."""
        strategy = self.trainer.strategy
        return strategy.block_backward_sync() if isinstance(strategy, ParallelStrategy) and not on else nullcontext()

    @torch.no_grad()
    def _pixel_error(self, x: Tensor, reconstruction: Reconstruction) -> dict[str, Tensor]:
        if reconstruction.x_hat is None or self.codec.spec.media == "audio":
            return {}
        error = (reconstruction.x_hat.detach().float().clamp(0, 1) - x).square().mean()
        return {"psnr": -10 * error.clamp(min=1e-10).log10()}

    # --- optimizers --------------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The codec's optimizer and schedule, then each adversary's."""
        made = [self._optimizer(self.codec, self.optimizer, self.schedule)]
        for contest in self.adversaries.values():
            made.append(self._optimizer(contest.adversary, contest.optimizer, contest.schedule))  # type: ignore[arg-type]
        return made

    @staticmethod
    def _optimizer(module: nn.Module, factory: OptimizerFactory, schedule: ScheduleFactory) -> dict[str, Any]:
        optimizer = factory([(n, p) for n, p in module.named_parameters() if p.requires_grad])
        return {"optimizer": optimizer, "lr_scheduler": schedule(optimizer)}

    def step(self, contests: Mapping[str, Contest]) -> None:
        """Clips, steps and clears every optimizer that takes part, then the average of the weights.

        Written out because Lightning would count the adversaries' steps in `global_step`, and because a gradient
        scaler (16-mixed) must change its scale only after all of them have stepped.
        """
        wrapped, schedules = _listed(self.optimizers()), _listed(self.lr_schedulers())
        taking_part = [0] + [1 + i for i, name in enumerate(self.adversaries) if name in contests]
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        for contest in contests.values():
            contest.average_gradients()
        wrapped[0]._on_before_step()
        for i in taking_part:
            if scaler is not None:
                scaler.unscale_(wrapped[i].optimizer)
            self._clip(wrapped[i].optimizer)
        for i in taking_part:
            optimizer: Optimizer = wrapped[i].optimizer
            scaler.step(optimizer) if scaler is not None else optimizer.step()
            optimizer.zero_grad()
            schedules[i].step()
        if scaler is not None:
            scaler.update()
        wrapped[0]._on_after_step()
        update_codebooks(self.codec)
        if self.balancer is not None:
            self.balancer.update()
        if self.ema is not None:
            self.ema.update()

    def _clip(self, optimizer: Optimizer) -> None:
        if self.clip is not None:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, self.clip)

    # --- the rest ----------------------------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> "CodecTask":
        """As nn.Module.train, but frozen parts stay in evaluation mode."""
        super().train(mode)
        for part in self.frozen:
            part.eval()
        return self

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the codec has the weights that are validated and saved."""
        try:
            with nullcontext() if self.ema is None else self.ema.applied():
                forget_gathered(self.codec)
                yield
        finally:
            forget_gathered(self.codec)

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """Measures one batch with the averaged weights; nothing before all codebooks have begun from training data."""
        if parts.waiting(self.codec):
            return
        with self.averaged():
            self.validation.measure(self.codec, batch)

    def on_validation_epoch_end(self) -> None:
        """Logs what was measured."""
        self.log_dict({f"val/{name}": value for name, value in self.validation.results().items()}, logger=False)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the counts."""
        checkpoint["codeczoo"] = {"batches": self.batches, "ema_updates": self.ema.updates if self.ema else 0}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes them back."""
        self.batches = checkpoint["codeczoo"]["batches"]
        if self.ema is not None:
            self.ema.updates = checkpoint["codeczoo"]["ema_updates"]


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
