"""Teachers, and self-supervised speech models as such, from local files; nothing is ever downloaded."""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from codeczoo.core.errors import ConfigError, InputError, MissingError, WeightsError, nearest
from codeczoo.io.weights import load_strict
from codeczoo.losses.frozen import pretrained

RATE, HOP, WINDOW = 16_000, 320, 400  # of HuBERT, WavLM and wav2vec 2.0: Hz, samples a frame, reach of a frame
WITHOUT = "or train without the distillation term."
HOW_TRANSFORMERS = (
    "Get one with `hf download facebook/hubert-base-ls960 --local-dir hubert` (or microsoft/wavlm-large) and give the "
    f"folder's path as the teacher's `folder`, {WITHOUT}"
)
HOW_TORCHAUDIO = (
    "Get the file with `python -c \"import torch, torchaudio; torch.save(torchaudio.pipelines.HUBERT_BASE.get_model()"
    f".state_dict(), 'hubert_base.pth')\"` and give its path as the teacher's `weights`, {WITHOUT}"
)


class Teacher(nn.Module, ABC):
    """Makes features out of media."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, T) to (B, D, frames), or pictures (B, 3, H, W) to (B, D, h, w)."""


class SpeechModel(Teacher):
    """The hidden states of a self-supervised speech model, one frame for every 20 ms.

    Differs from the usual extraction, which gives a frame less: the audio is padded by 40 samples at both ends, so that
    every 320 samples of 16 kHz have one frame, centred on them.

    Args:
        sample_rate: of the audio it gets, Hz.
        layer: hidden state to give, 0 for the input of the first block, negative from the end; None: mean of all.
        normalise: bring every clip to mean 0 and variance 1 first, as the model was trained.
    """

    def __init__(self, sample_rate: int, layer: int | None, normalise: bool) -> None:
        super().__init__()
        from torchaudio.transforms import Resample

        self.resample = Resample(sample_rate, RATE) if sample_rate != RATE else nn.Identity()
        self.layer, self.normalise = layer, normalise

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, T), the channels are averaged, to (B, D, frames) with T / sample_rate * 50 frames."""
        mono = self.resample(x.mean(1))  # (B, T)
        if self.normalise:
            mono = (mono - mono.mean(1, keepdim=True)) / (mono.var(1, keepdim=True, correction=0) + 1e-7).sqrt()
        states = self.states(nn.functional.pad(mono, ((WINDOW - HOP) // 2,) * 2))
        if self.layer is None:
            return torch.stack(states).mean(0).transpose(1, 2)  # (B, D, frames)
        if not -len(states) <= self.layer < len(states):
            raise InputError(f"teacher: layer must be within {-len(states)}..{len(states) - 1}, got {self.layer}")
        return states[self.layer].transpose(1, 2)  # (B, D, frames)

    @abstractmethod
    def states(self, mono: Tensor) -> list[Tensor]:
        """mono (B, T) at 16 kHz to all hidden states (B, frames, D): the blocks' input, then each block's output.

        The last one of the large models is the block's, before the final norm.
        """


class TransformersTeacher(SpeechModel):
    """HuBERT, WavLM or wav2vec 2.0 out of a `transformers` folder.

    Args:
        folder: config.json, model.safetensors (or pytorch_model.bin) and preprocessor_config.json.
        sample_rate: of the audio it gets, Hz.
        layer: see SpeechModel; None, as in SpeechTokenizer.
        normalise: see SpeechModel; None: as preprocessor_config.json says.

    Raises:
        MissingError: no folder, or `transformers` is not installed.
        WeightsError: the folder cannot be read or is of another kind of model.
    """

    def __init__(
        self, folder: str | Path | None, sample_rate: int, layer: int | None = None, normalise: bool | None = None
    ) -> None:
        path = given_folder(folder, HOW_TRANSFORMERS)
        super().__init__(sample_rate, layer, _normalised(path) if normalise is None else normalise)
        self.network = read_folder(path, ("feature_extractor", "feature_projection"), "HuBERT, WavLM or wav2vec 2.0")

    def states(self, mono: Tensor) -> list[Tensor]:
        """See SpeechModel."""
        return list(self.network(mono, output_hidden_states=True).hidden_states)


class TorchaudioTeacher(SpeechModel):
    """HuBERT, WavLM or wav2vec 2.0 in torchaudio's layout.

    Args:
        weights: local file with the state dict of `torchaudio.models.ARCHITECTURE()`.
        architecture: "hubert_base", "hubert_large", "wavlm_base", "wavlm_large", ... of torchaudio.models.
        sample_rate: of the audio it gets, Hz.
        layer: see SpeechModel.
        normalise: see SpeechModel; torchaudio's large models want it, its base ones do not.

    Raises:
        MissingError: the file is not there.
        ConfigError: torchaudio has no such model.
        WeightsError: the file is not of that model.
    """

    def __init__(
        self, weights: str | Path | None, architecture: str, sample_rate: int, layer: int | None = None,
        normalise: bool = False,
    ) -> None:
        state = pretrained(weights, f"the teacher {architecture}", HOW_TORCHAUDIO)
        super().__init__(sample_rate, layer, normalise)
        from torchaudio import models

        known = [n for n in dir(models) if n.startswith(("hubert_", "wavlm_", "wav2vec2_")) and n != "wav2vec2_model"]
        if architecture not in known:
            raise ConfigError(f"torchaudio has no speech model '{architecture}'; {nearest(architecture, known)}")
        self.network = getattr(models, architecture)()
        load_strict(self.network, state, str(weights))

    def states(self, mono: Tensor) -> list[Tensor]:
        """See SpeechModel."""
        features, _ = self.network.feature_extractor(mono, None)  # (B, frames, D)
        transformer = self.network.encoder.transformer
        states, bias = [transformer._preprocess(self.network.encoder.feature_projection(features))], None
        for block in transformer.layers:
            state, bias = block(states[-1], None, position_bias=bias)
            states.append(state)
        return states


class Pooled(Teacher):
    """Another teacher at a lower rate, averaged over overlapping windows.

    Source: Mimi (arXiv 2410.00037): 50 to 12.5 frames a second with kernel 8, stride 4; not causal.

    Args:
        teacher: at 50 frames a second.
        kernel: frames of a window; those beyond the ends do not count.
        stride: frames from one window to the next.
    """

    def __init__(self, teacher: Teacher, kernel: int = 8, stride: int = 4) -> None:
        super().__init__()
        self.teacher, self.kernel, self.stride = teacher, kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, T) to (B, D, frames / stride)."""
        side = (self.kernel - self.stride) // 2
        return nn.functional.avg_pool1d(self.teacher(x), self.kernel, self.stride, side, count_include_pad=False)


def _normalised(folder: Path) -> bool:
    """Whether the folder's model was trained on normalised clips."""
    path = folder / "preprocessor_config.json"
    try:
        return bool(json.loads(path.read_text())["do_normalize"])
    except (OSError, ValueError, KeyError):
        raise WeightsError(f"{path} says nothing of do_normalize; give the teacher's normalise=true or false") from None


def given_folder(folder: str | Path | None, how: str) -> Path:
    """A folder of `transformers`. Raises MissingError, whose text ends with `how`, where there is none."""
    if folder is None or not Path(folder, "config.json").is_file():
        where = "no folder is given" if folder is None else f"there is no {Path(folder, 'config.json')}"
        raise MissingError(f"a distillation teacher is wanted and {where}. {how}")
    return Path(folder)


def read_folder(folder: Path, parts: Sequence[str], wanted: str) -> nn.Module:
    """The model in a `transformers` folder, complete, float32.

    Args:
        folder: see `given_folder`.
        parts: modules that it must have.
        wanted: what kinds have them, for the message.

    Raises:
        MissingError: `transformers` is not installed.
        WeightsError: the folder cannot be read or is of another kind of model.
    """
    try:
        from transformers import AutoModel
    except ImportError:
        raise MissingError('this teacher needs transformers: pip install "codeczoo[text]"') from None
    try:
        network, found = AutoModel.from_pretrained(
            folder, local_files_only=True, dtype=torch.float32, output_loading_info=True
        )
    except Exception as error:  # config, safetensors and pickle errors of many kinds
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise WeightsError(f"{folder}: transformers cannot read it ({reason[0]})") from None
    if not all(hasattr(network, part) for part in parts):
        raise WeightsError(f"{folder}: a {type(network).__name__}, wanted {wanted}")
    if found["missing_keys"]:
        raise WeightsError(f"{folder}: its weights lack {sorted(found['missing_keys'])[0]}")
    return network
