"""The few data types that everything shares: TokenSpec, Tokens, Quantized, Reconstruction, Sampling."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from math import isfinite, log2
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from codeczoo.core.errors import FormatError, InputError

Media = Literal["image", "audio", "video"]
Unit = Literal["image", "pixel", "second"]
Prefix = Literal["positions", "codebooks", "streams"]
Solver = Literal["euler", "heun"]


@dataclass(frozen=True)
class StreamSpec:
    """One grid of codes.

    Args:
        vocab_sizes: number of entries of each of the K codebooks, coarse to fine.
        axes: names of the position axes, e.g. ("position",), ("time",), ("row", "column").
        shape: size of each axis; None where it follows the size of the media.
        rate: positions per unit of media (see TokenSpec.unit).
        name: what the stream is called in tables.
        stride: of video, frames, rows and columns that a position stands for; position 0 in time stands for the first
            frame alone, so T positions are 1 + stride[0] * (T - 1) frames. None for other media.
    """

    vocab_sizes: tuple[int, ...]
    axes: tuple[str, ...]
    shape: tuple[int | None, ...]
    rate: float
    name: str = "codes"
    stride: tuple[int, int, int] | None = None

    @cached_property
    def bits_per_position(self) -> float:
        """Information of one position over all codebooks, in bits, for uniformly used codes."""
        return sum(log2(v) for v in self.vocab_sizes)


@dataclass(frozen=True)
class TokenSpec:
    """Static description of a codec's tokens.

    Args:
        media: what the codec takes.
        unit: what `rate` of the streams counts: per "image" (fixed-size codecs), "pixel" or "second".
        streams: the grids of codes, coarse to fine; none of a continuous autoencoder.
        prefixes: which truncations still decode: fewer "positions", fewer "codebooks", fewer "streams".
        input_size: the one size the codec takes, (H, W) for images; None when any size will do.
        sample_rate: of the audio the codec takes, Hz; None for images and video.
        channels: media channels.
        window: (length, step) in samples of the windows that the codec takes by themselves, where it does: codes of
            neighbouring windows overlap in time, so they are not one continuous stream.
    """

    media: Media
    unit: Unit
    streams: tuple[StreamSpec, ...]
    prefixes: tuple[Prefix, ...] = ()
    input_size: tuple[int, ...] | None = None
    sample_rate: int | None = None
    channels: int = 3
    window: tuple[int, int] | None = None

    @property
    def bits_per_unit(self) -> float:
        """Bits per unit of media at full length, for uniformly used codes."""
        return sum(s.rate * s.bits_per_position for s in self.streams)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a JSON header; `from_dict` is the inverse."""
        values = _without(asdict(self), "window")
        return values | {"streams": tuple(_without(stream, "stride") for stream in values["streams"])}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "TokenSpec":
        """Raises FormatError when `values` is not what `to_dict` made."""
        try:
            streams = tuple(StreamSpec(**{k: _tupled(v) for k, v in s.items()}) for s in values["streams"])
            return TokenSpec(**{k: _tupled(v) for k, v in values.items() if k != "streams"}, streams=streams)
        except (TypeError, KeyError, AttributeError) as error:
            raise FormatError(f"not a TokenSpec: {error}") from None


def _without(values: dict[str, Any], optional: str) -> dict[str, Any]:
    """The values, less an optional one that is None."""
    return {key: value for key, value in values.items() if key != optional or value is not None}


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@dataclass(frozen=True, eq=False)
class Tokens:
    """All streams of a batch and what decode needs besides.

    Args:
        spec: of the codec that made them.
        streams: int64 (B, K, *S) each, 0 <= streams[s][:, k] < spec.streams[s].vocab_sizes[k]. Trailing codebooks and
            streams may be absent where `spec.prefixes` allows it.
        size: int64 (B, n), the size of each sample as the codec got it: (H, W), (T,) or (T, H, W).
        lengths: one int64 (B,) per stream: valid positions along its first axis, the rest is padding. None: all valid.
        sample_rate: samples or frames per second; None for images.
        gains: float32 (B, windows), what decode multiplies each window by, for codecs that take the loudness out of
            their windows; 0 behind the last one. None for all others.
    """

    spec: TokenSpec
    streams: tuple[Tensor, ...]
    size: Tensor
    lengths: tuple[Tensor, ...] | None = None
    sample_rate: float | None = None
    gains: Tensor | None = None

    def __post_init__(self) -> None:
        if not 1 <= len(self.streams) <= len(self.spec.streams):
            raise InputError(f"{len(self.streams)} streams, the codec has {len(self.spec.streams)}")
        for codes, spec in zip(self.streams, self.spec.streams, strict=False):
            if codes.dtype != torch.int64 or codes.ndim != 2 + len(spec.axes):
                raise InputError(f"codes must be int64 (B, K, {', '.join(spec.axes)}), got {_describe(codes)}")
            if not 1 <= codes.shape[1] <= len(spec.vocab_sizes):
                raise InputError(f"{codes.shape[1]} codebooks, stream '{spec.name}' has {len(spec.vocab_sizes)}")

    @property
    def codes(self) -> Tensor:
        """The only stream. Raises InputError when there are several."""
        if len(self.streams) != 1:
            raise InputError(f"these tokens have {len(self.streams)} streams; use .streams[s]")
        return self.streams[0]

    @property
    def batch(self) -> int:
        """B, the number of samples."""
        return self.streams[0].shape[0]

    def stream_lengths(self, stream: int = 0) -> Tensor:
        """Valid positions along the first axis of one stream, int64 (B,)."""
        if self.lengths is not None:
            return self.lengths[stream]
        codes = self.streams[stream]
        return torch.full((codes.shape[0],), codes.shape[2], dtype=torch.int64, device=codes.device)

    def check_range(self) -> "Tokens":
        """Returns self. Raises InputError naming the first codebook with a code outside its vocabulary."""
        for s, (codes, spec) in enumerate(zip(self.streams, self.spec.streams, strict=False)):
            limit = torch.tensor(spec.vocab_sizes[: codes.shape[1]], device=codes.device)
            bad = (codes < 0) | (codes >= limit.view(1, -1, *[1] * len(spec.axes)))
            if bad.any():
                k = int(bad.nonzero()[0, 1])
                raise InputError(
                    f"stream {s} codebook {k}: code {int(codes[bad][0])} is outside 0..{spec.vocab_sizes[k] - 1}"
                )
        return self

    def prefix(
        self,
        positions: int | Sequence[int] | None = None,
        codebooks: int | None = None,
        streams: int | None = None,
    ) -> "Tokens":
        """The first positions (one number, or one per sample), codebooks or streams.

        Positions of video are steps in time of the first stream; other streams keep those of the same frames.
        Raises InputError for a truncation that the codec cannot decode or a number out of range.
        """
        result = self
        if streams is not None:
            self._allow("streams", streams, len(self.streams))
            kept = result.lengths[:streams] if result.lengths else None
            result = replace(result, streams=result.streams[:streams], lengths=kept)
        if codebooks is not None:
            self._allow("codebooks", codebooks, max(c.shape[1] for c in self.streams))
            result = replace(result, streams=tuple(c[:, :codebooks] for c in result.streams))
        if positions is not None:
            result = result._positions(positions)
        return result

    def _positions(self, positions: int | Sequence[int]) -> "Tokens":
        wanted = [positions] * self.batch if isinstance(positions, int) else [int(p) for p in positions]
        if len(wanted) != self.batch:
            raise InputError(f"{len(wanted)} prefix lengths for a batch of {self.batch}")
        for n in wanted:
            self._allow("positions", n, self.streams[0].shape[2])
        pairs = zip(self.streams, self.spec.streams, strict=False)
        kept = [self._kept(s, codes, spec, wanted) for s, (codes, spec) in enumerate(pairs)]
        return replace(self, streams=tuple(codes for codes, _ in kept), lengths=tuple(n for _, n in kept))

    def _kept(self, s: int, codes: Tensor, spec: StreamSpec, wanted: list[int]) -> tuple[Tensor, Tensor]:
        """The codes and lengths of stream s that go with the first positions `wanted` of the first stream."""
        first = self.spec.streams[0].stride
        if spec.stride and first:
            wanted = [1 + (n - 1) * first[0] // spec.stride[0] for n in wanted]
        limit = torch.tensor(wanted, dtype=torch.int64, device=codes.device)
        lengths = torch.minimum(limit, self.stream_lengths(s))
        return codes[:, :, : max(wanted)], lengths

    def _allow(self, kind: Prefix, n: int, most: int) -> None:
        if kind not in self.spec.prefixes:
            can = f"only of {', '.join(self.spec.prefixes)}" if self.spec.prefixes else "no prefix at all"
            raise InputError(f"this codec decodes no prefix of {kind}, {can}")
        if not 1 <= n <= most:
            raise InputError(f"{kind} must be 1..{most}, got {n}")

    def to(self, device: torch.device | str) -> "Tokens":
        """The same tokens on another device."""
        lengths = None if self.lengths is None else tuple(n.to(device) for n in self.lengths)
        gains = None if self.gains is None else self.gains.to(device)
        streams = tuple(c.to(device) for c in self.streams)
        return replace(self, streams=streams, size=self.size.to(device), lengths=lengths, gains=gains)

    def __getitem__(self, i: int) -> "Tokens":
        """Sample i as a batch of one, its padding cut off."""
        streams = tuple(c[i : i + 1, :, : int(self.stream_lengths(s)[i])] for s, c in enumerate(self.streams))
        gains = None if self.gains is None else self.gains[i : i + 1, : int((self.gains[i] != 0).sum())]
        return replace(self, streams=streams, size=self.size[i : i + 1], lengths=None, gains=gains)

    @staticmethod
    def stack(items: Sequence["Tokens"]) -> "Tokens":
        """One batch out of several: shorter ones are padded with code 0 and their lengths recorded.

        Raises InputError when specs, numbers of streams or codebooks differ, or `items` is empty.
        """
        if not items:
            raise InputError("no tokens to stack")
        first = items[0]
        if any(t.spec != first.spec or t.sample_rate != first.sample_rate for t in items):
            raise InputError("tokens of different codecs or rates cannot be stacked")
        if any([c.shape[1] for c in t.streams] != [c.shape[1] for c in first.streams] for t in items):
            raise InputError("tokens with different numbers of streams or codebooks cannot be stacked")
        streams, lengths = [], []
        for s in range(len(first.streams)):
            codes = [t.streams[s] for t in items]
            if any(c.shape[3:] != codes[0].shape[3:] for c in codes):
                raise InputError("only the first position axis may differ between stacked tokens")
            longest = max(c.shape[2] for c in codes)
            padded = [torch.cat([c, c.new_zeros(*c.shape[:2], longest - c.shape[2], *c.shape[3:])], 2) for c in codes]
            streams.append(torch.cat(padded))
            lengths.append(torch.cat([t.stream_lengths(s) for t in items]))
        ragged = any(bool((n != c.shape[2]).any()) for n, c in zip(lengths, streams, strict=True))
        gains = [gain for t in items if t.gains is not None for gain in t.gains]
        return Tokens(
            first.spec,
            tuple(streams),
            torch.cat([t.size for t in items]),
            tuple(lengths) if ragged else None,
            first.sample_rate,
            pad_sequence(gains, batch_first=True) if gains else None,
        )


@dataclass
class Quantized:
    """What a quantizer's forward returns.

    Args:
        z: (B, D, *S), forward value exactly `decode(codes)`, straight-through gradient.
        streams: codes int64 (B, K, *S), one tensor for each stream, coarse to fine. Most quantizers have one.
        losses: unweighted scalars by name; weights live in the recipe.
        depth: int64 (B,), how many codebooks take part in each sample, or streams where there are several (the codes of
            the others are 0); None: all.
    """

    z: Tensor
    streams: tuple[Tensor, ...]
    losses: dict[str, Tensor] = field(default_factory=dict)
    depth: Tensor | None = None

    @property
    def codes(self) -> Tensor:
        """The only stream. Raises InputError when there are several."""
        if len(self.streams) != 1:
            raise InputError(f"this quantizer gave {len(self.streams)} streams; use .streams[s]")
        return self.streams[0]


@dataclass
class Reconstruction:
    """What a codec's forward returns, for training.

    Args:
        tokens: of the batch; None of a continuous autoencoder.
        x_hat: as x; None when the objective reads no media (`forward(..., pixels=False)`).
        losses: unweighted scalars by name, from the quantizer or the codec itself.
        logits: (B, V, *S) where the decoder predicts the codes of another tokenizer (TiTok stage 1), else None.
        features: (B, D, T) where the first codebook learns from a teacher (SpeechTokenizer): its quantized latent;
            (B, D, h, w) where patches inside the decoder do (FlexTok). Both through the codec's own map to the
            teacher's D; else None.
    """

    tokens: Tokens | None
    x_hat: Tensor | None = None
    losses: dict[str, Tensor] = field(default_factory=dict)
    logits: Tensor | None = None
    features: Tensor | None = None


@dataclass(frozen=True)
class Sampling:
    """How a decoder that samples (a flow, a diffusion, noise at its input) makes media of tokens.

    Args:
        steps: of the solver, at least 1.
        guidance: how far to go from what no tokens would give to what these give, and beyond. 1: as they give.
        seed: of the noise, 0..2^63 - 1.
        solver: "euler", or "heun", which is of second order and asks the network twice a step.
        projected: of guidance, keep what is orthogonal to the prediction, limited and with momentum ("adaptive
            projected guidance"), so that large guidance does not saturate.

    Raises:
        InputError: out of range.
    """

    steps: int = 20
    guidance: float = 7.5
    seed: int = 0
    solver: Solver = "euler"
    projected: bool = True

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"steps must be at least 1, got {self.steps}")
        if not (isfinite(self.guidance) and self.guidance >= 0):
            raise InputError(f"guidance must be a number of at least 0, got {self.guidance}")
        if not 0 <= self.seed < 1 << 63:
            raise InputError(f"seed must be 0..2^63 - 1, got {self.seed}")
        if self.solver not in get_args(Solver):
            raise InputError(f"solver must be {' or '.join(get_args(Solver))}, got {self.solver!r}")

    def noise(self, *shape: int) -> Tensor:
        """Normal noise for one sample, float32 (*shape) on the CPU.

        Every sample of every batch gets the same, so that none depends on its neighbours.
        """
        return torch.randn(shape, generator=torch.Generator().manual_seed(self.seed))


def _describe(x: Tensor) -> str:
    return f"{str(x.dtype).removeprefix('torch.')} {tuple(x.shape)}"
