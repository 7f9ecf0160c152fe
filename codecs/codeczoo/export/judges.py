"""How good decoded media are, and what their bytes are counted per: one class for each media."""

from functools import partial
from math import prod
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from codeczoo.core.types import Tokens
from codeczoo.export import audio_baselines, baselines, video_baselines
from codeczoo.export.judging import Facts, Judge, Measures, Networks
from codeczoo.metrics import audio, video
from codeczoo.metrics.bits import bits_per_pixel, nominal_bits, stream_bits
from codeczoo.metrics.fid import ReconstructionFID
from codeczoo.metrics.i3d import CLASSES, SHORTEST
from codeczoo.metrics.image import ms_ssim, psnr, ssim
from codeczoo.metrics.pitch import pitch_errors

LPIPS_SIDE = 16  # pixels: VGG halves them four times


class PictureMeasures(Measures):
    """With those of networks. Arguments: see Judge."""

    FUNCTIONS: ClassVar = {"psnr": (psnr, 1), "ssim": (ssim, 6), "ms_ssim": (ms_ssim, 176)}  # and their fewest pixels

    def __init__(self, networks: Networks, device: torch.device) -> None:
        super().__init__({})
        self.networks, self.device = networks, device
        self._fid = ReconstructionFID(networks.inception).to(device) if networks.inception else None

    def of(self, x: Tensor, x_hat: Tensor) -> Facts:
        """See Measures."""
        smallest = min(x.shape[1:])
        self.functions = {name: of for name, (of, least) in self.FUNCTIONS.items() if smallest >= least}
        values = super().of(x, x_hat)
        pair = x[None].to(self.device), x_hat[None].to(self.device)
        if self.networks.lpips is not None and smallest >= LPIPS_SIDE:
            values["lpips"] = float(self.networks.lpips(*pair))
        if self._fid is not None:
            self._fid.update(*pair)
        return values

    def of_all(self) -> Facts:
        """See Measures: no FID of fewer than two pictures."""
        return {"rfid": self._fid.result()} if self._fid is not None and self._fid.real.count >= 2 else {}


class PictureJudge(Judge):
    """Bits are counted per pixel; baselines get the bytes of the whole file."""

    BASELINES: ClassVar[tuple[str, ...]] = tuple(baselines.BASELINES)

    def measures(self) -> Measures:
        """See Judge."""
        return PictureMeasures(self.networks, self.device)

    def sizes(self, x: Tensor, tokens: Tokens, payload: int, total: int) -> Facts:
        """See Judge."""
        return pixel_sizes(x, tokens, payload) | file_size(x, total)

    def baseline(self, name: str, x: Tensor, payload: int, total: int) -> tuple[Tensor, Facts]:
        """See Judge."""
        coded = baselines.at_bytes(x, baselines.BASELINES[name], total)
        shares = {"shrunk": float(coded.shrunk > 1), "too_large": float(coded.bytes > total)}
        return coded.x_hat, file_size(x, coded.bytes) | shares


def pixel_sizes(x: Tensor, tokens: Tokens, payload: int) -> Facts:
    """Bits of the tokens of x (C, *spatial), and of their coded codes."""
    facts = {"bits": float(nominal_bits(tokens)), "bpp": float(bits_per_pixel(tokens))}
    return facts | {"payload_bytes": payload, "payload_bpp": 8 * payload / prod(x.shape[1:])}


def file_size(x: Tensor, total: int) -> Facts:
    """Of a whole file that holds x (C, *spatial)."""
    return {"file_bytes": total, "file_bpp": 8 * total / prod(x.shape[1:])}


class SoundMeasures(Measures):
    """With those of pitch. Arguments: the sampling rate, Hz."""

    def __init__(self, rate: int) -> None:
        super().__init__({name: partial(of, rate=rate) for name, of in audio.MEASURES.items()})
        self.rate = rate

    def of(self, x: Tensor, x_hat: Tensor) -> Facts:
        """See Measures."""
        errors = pitch_errors(x[None], x_hat[None], self.rate)
        return super().of(x, x_hat) | {name: float(value) for name, value in errors.items()}


class SoundJudge(Judge):
    """Bits are counted per second; baselines get the bytes of the coded codes, and count their packets."""

    BASELINES: ClassVar[tuple[str, ...]] = tuple(audio_baselines.BASELINES)

    def measures(self) -> Measures:
        """See Judge."""
        return SoundMeasures(self._rate)

    def sizes(self, x: Tensor, tokens: Tokens, payload: int, total: int) -> Facts:
        """See Judge."""
        return {"kbps": self._kbps(x, float(nominal_bits(tokens).sum()) / 8)} | self._coded(x, payload)

    def baseline(self, name: str, x: Tensor, payload: int, total: int) -> tuple[Tensor, Facts]:
        """See Judge."""
        coded = audio_baselines.at_bytes(x, self._rate, audio_baselines.BASELINES[name], payload)
        return coded.x_hat, self._coded(x, coded.bytes) | {"too_large": float(coded.bytes > payload)}

    @property
    def _rate(self) -> int:
        assert self.spec.sample_rate is not None
        return self.spec.sample_rate

    def _coded(self, x: Tensor, payload: float) -> Facts:
        return {"payload_bytes": payload, "payload_kbps": self._kbps(x, payload)}

    def _kbps(self, x: Tensor, n_bytes: float) -> float:
        return 8 * n_bytes * self._rate / x.shape[1] / 1000


class VideoMeasures(Measures):
    """Those of networks with the rest. Arguments: see Judge."""

    FUNCTIONS: ClassVar = {"psnr": (video.psnr, 1), "ssim": (video.ssim, 6), "flicker": (video.flicker, 1)}

    def __init__(self, networks: Networks, device: torch.device) -> None:
        super().__init__({})
        self.networks, self.device = networks, device
        self._fvd = ReconstructionFID(networks.i3d, CLASSES).to(device) if networks.i3d else None

    def of(self, x: Tensor, x_hat: Tensor) -> Facts:
        """See Measures. Clips that are too short for the network of FVD are left out of it."""
        smallest = min(x.shape[2:])
        self.functions = {name: of for name, (of, least) in self.FUNCTIONS.items() if smallest >= least}
        values = super().of(x, x_hat)
        if self.networks.lpips is not None and smallest >= LPIPS_SIDE:
            pairs = zip(x.to(self.device).split(1, 1), x_hat.to(self.device).split(1, 1), strict=True)
            found = [float(self.networks.lpips(a.transpose(0, 1), b.transpose(0, 1))) for a, b in pairs]
            values["lpips"] = sum(found) / len(found)
        if self._fvd is not None and x.shape[1] >= SHORTEST:
            self._fvd.update(x[None].to(self.device), x_hat[None].to(self.device))
        return values

    def of_all(self) -> Facts:
        """See Measures: no FVD of fewer than two clips."""
        return {"fvd": self._fvd.result()} if self._fvd is not None and self._fvd.real.count >= 2 else {}


class VideoJudge(Judge):
    """Bits are counted per pixel, of each stream too; baselines get the bytes of the whole file."""

    BASELINES: ClassVar[tuple[str, ...]] = tuple(video_baselines.BASELINES)
    SHOWN: ClassVar[int] = 8  # frames of a preview
    SIDE: ClassVar[int] = 256  # pixels, of its longer side at most

    def measures(self) -> Measures:
        """See Judge."""
        return VideoMeasures(self.networks, self.device)

    def preview(self, x: Tensor) -> Tensor:
        """See Judge: frames `places` of x, made smaller where they are large."""
        return small(x[:, self.places(x.shape[1])], self.SIDE)

    @classmethod
    def places(cls, frames: int) -> list[int]:
        """Which of so many frames are shown: evenly spread, first and last among them."""
        places: list[int] = torch.linspace(0, frames - 1, min(cls.SHOWN, frames)).round().long().tolist()
        return places

    def sizes(self, x: Tensor, tokens: Tokens, payload: int, total: int) -> Facts:
        """See Judge."""
        facts = pixel_sizes(x, tokens, payload) | file_size(x, total)
        if len(self.spec.streams) > 1:
            names = (stream.name for stream in self.spec.streams)
            bits = stream_bits(tokens)
            facts |= {f"bpp {name}": float(n) / prod(x.shape[1:]) for name, n in zip(names, bits, strict=False)}
        return facts

    def baseline(self, name: str, x: Tensor, payload: int, total: int) -> tuple[Tensor, Facts]:
        """See Judge."""
        coded = video_baselines.at_bytes(x, video_baselines.BASELINES[name], total)
        size = len(coded.stream)
        return coded.x_hat, file_size(x, size) | {"shrunk": float(coded.shrunk > 1), "too_large": float(size > total)}


def small(frames: Tensor, most: int) -> Tensor:
    """frames (3, T, H, W), made smaller where their longer side has more than `most` pixels."""
    height, width = frames.shape[2:]
    shrink = max(1.0, max(height, width) / most)
    size = [max(1, round(n / shrink)) for n in (height, width)]
    resized = interpolate(frames.transpose(0, 1), size, mode="bilinear", antialias=True)  # (T, 3, h, w)
    return resized.transpose(0, 1)


JUDGES: dict[str, type[Judge]] = {"image": PictureJudge, "audio": SoundJudge, "video": VideoJudge}
