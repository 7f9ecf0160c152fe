"""Encode and decode audio with EnCodec 24k (6 kbps), DAC 24k and Mimi (8 codebooks), beside `transformers`.

    python tools/bench_audio.py encodec dac mimi --batch 1 8

Both have the same random weights and take turns, and the least time of `--repeats` counts. A rate is seconds of audio a
second. "x" is our rate over that of transformers in float32 (its own bfloat16 is not timed). "share" is of the rate of
a 1024 x 1024 product by oneDNN, timed just before. Codes are compared in float32 with those of transformers, in bf16
with ours in float32. The last table gives the time of a frame in streams of one frame a step, encoded and decoded.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import DacConfig, DacModel, EncodecConfig, EncodecModel, MimiConfig, MimiModel

import codeczoo
from codeczoo.audio.waveform import WaveformCodec
from codeczoo.core.types import Tokens

Row = dict[str, Any]


def models() -> dict[str, tuple[Callable[[], nn.Module], int, dict[str, Any]]]:
    """For each codec: transformers' model, the codebooks to use, and what its `encode` wants for that."""
    return {
        "encodec": (lambda: EncodecModel(EncodecConfig()), 8, {"bandwidth": 6.0}),
        "dac": (
            lambda: DacModel(DacConfig(sampling_rate=24000, downsampling_ratios=[2, 4, 5, 8], n_codebooks=32)),
            32, {"n_quantizers": 32},
        ),
        "mimi": (lambda: MimiModel(MimiConfig()), 8, {"num_quantizers": 8}),
    }  # fmt: skip


def random_model(make: Callable[[], nn.Module]) -> Any:
    """In evaluation mode; latents are moved to where the entries of the codebooks are, or all would get one code."""
    model = make().eval()
    for name, buffer in model.named_buffers():
        if name.endswith(("embed", "embed_sum")):
            buffer.normal_()
        elif name.endswith("cluster_usage"):
            buffer.uniform_(0.5, 1.5)
    if isinstance(model, EncodecModel):
        last = model.encoder.layers[-1].conv
        z = model.encoder(torch.randn(1, 1, 24000) * 0.1)  # (1, D, frames)
        spread = z.std(2).mean()
        last.parametrizations.weight.original0.data /= spread
        last.bias.data = (last.bias.data - z.mean((0, 2))) / spread
    return model


def same_weights(name: str, model: Any) -> WaveformCodec:
    """Our codec with the weights of a transformers model."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
        codec = codeczoo.from_original(name, path, json.loads(model.config.to_json_string(use_diff=False)))
    assert isinstance(codec, WaveformCodec)
    return codec.eval()


def decode_there(model: Any, codes: Tensor) -> Tensor:
    """Codes (B, K, frames) by transformers, (B, 1, T)."""
    if isinstance(model, EncodecModel):
        return model.decode(codes[None], [None]).audio_values
    return model.decode(audio_codes=codes).audio_values.reshape(len(codes), 1, -1)


def clock() -> float:
    """Seconds; of processor time on one thread, which other programs disturb less."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def seconds(jobs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Least time of each, in turns of two runs: the first packs the weights anew after one in another precision."""
    best = dict.fromkeys(jobs, float("inf"))
    for _ in range(repeats):
        for name, job in jobs.items():
            for _ in range(2):
                start = clock()
                job()
                best[name] = min(best[name], clock() - start)
    return best


def product_rate(dtype: torch.dtype, n: int = 1024) -> float:
    """GFLOP/s of an n x n matrix product by oneDNN."""
    a, b = (torch.randn(n, n, dtype=dtype) for _ in range(2))
    product = partial(torch.ops.mkldnn._linear_pointwise, a, b, None, "none", [], "")
    return 2 * n**3 / seconds({"": product}, 20)[""] / 1e9


def work(job: Callable[[], Any]) -> float:
    """GFLOP of a job by torch's plain operations."""
    with torch.backends.mkldnn.flags(enabled=False), FlopCounterMode(display=False) as counter:  # blind to fused ones
        job()
    return counter.get_total_flops() / 1e9


def bench(name: str, batch: int, args: argparse.Namespace) -> list[Row]:
    """Rows of one codec: encode and decode, float32 and bf16."""
    torch.manual_seed(0)
    make, k, extra = models()[name]
    model = random_model(make)
    codec = same_weights(name, model)
    x = torch.randn(batch, 1, round(args.seconds * codec.sample_rate) // codec.hop * codec.hop) * 0.1
    audio = x.numel() / codec.sample_rate  # seconds
    there = model.encode(x, **extra).audio_codes.reshape(batch, k, -1)
    tokens = codec.encode(x, n_codebooks=k)
    x_hat = codec.decode(tokens)
    reference = decode_there(model, tokens.codes)
    compared = {
        "codes_equal": (tokens.codes == there).float().mean().item(),
        "codes_used": tokens.codes[:, 0].unique().numel(),
        "wave_difference": (x_hat[:, :, : reference.shape[2]] - reference.clamp(-1, 1)).abs().max().item(),
    }
    ours = {"encode": lambda: codec.encode(x, n_codebooks=k), "decode": lambda: codec.decode(tokens)}
    theirs = {"encode": lambda: model.encode(x, **extra), "decode": lambda: decode_there(model, tokens.codes)}
    rows = []
    for job in ours:
        gflop = work(ours[job])
        rates = {precision: product_rate(dtype) for precision, dtype in PRECISIONS.items()}
        best = seconds(
            {"transformers": theirs[job]} | {p: partial(_within, autocast(p), ours[job]) for p in PRECISIONS},
            args.repeats,
        )
        for precision in PRECISIONS:
            row = {"codec": name, "batch": batch, "job": job, "precision": precision, "gflop": gflop / audio}
            row |= {"rate": audio / best[precision], "transformers": audio / best["transformers"]}
            row |= {"gflop_s": gflop / best[precision], "product_gflop_s": rates[precision]}
            rows.append(row | (compared if precision == "float32" else _changed(codec, x, k, tokens, x_hat)))
    return rows


PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16}


def autocast(precision: str) -> Callable[[], AbstractContextManager[Any]]:
    """Makes the context in which a job runs."""
    return partial(torch.autocast, "cpu", torch.bfloat16) if precision == "bf16" else nullcontext


def _within(context: Callable[[], AbstractContextManager[Any]], job: Callable[[], Any]) -> None:
    with context():
        job()


def _changed(codec: WaveformCodec, x: Tensor, k: int, tokens: Tokens, x_hat: Tensor) -> Row:
    with autocast("bf16")():
        codes = codec.encode(x, n_codebooks=k).codes
        wave = codec.decode(tokens)
    equal = codes == tokens.codes
    return {
        "codes_equal": equal.float().mean().item(), "first_equal": equal[:, 0].float().mean().item(),
        "wave_difference": (wave - x_hat).abs().max().item(),
    }  # fmt: skip


def stream(name: str, frames: int) -> Row:
    """Milliseconds a frame takes to encode and to decode, one frame a step."""
    torch.manual_seed(0)
    make, k, _ = models()[name]
    codec = same_weights(name, random_model(make))
    running = codec.stream()
    times: dict[str, list[float]] = {"encode": [], "decode": []}
    for piece in (torch.randn(1, 1, frames * codec.hop) * 0.1).split(codec.hop, 2):
        start = clock()
        codes = running.encode(piece, n_codebooks=k)
        middle = clock()
        running.decode(codes)
        times["encode"].append(middle - start)
        times["decode"].append(clock() - middle)
    first = 3 + running.latency // codec.hop  # until then weights are packed
    settled = {job: torch.tensor(values[first:]) * 1000 for job, values in times.items()}
    frame = 1000 * codec.hop / codec.sample_rate
    both = settled["encode"] + settled["decode"]
    return {"codec": name, "frame_ms": frame, "latency_ms": 1000 * running.latency / codec.sample_rate} | {
        **{f"{job}_ms": values.median().item() for job, values in settled.items()},
        "slowest_ms": both.max().item(), "rate": frame / both.mean().item(), "least_ms": both.min().item(),
    }  # fmt: skip


@torch.inference_mode()
def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("codecs", nargs="*", choices=list(models()), default=list(models()))
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--seconds", type=float, default=10.0, help="of each clip")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(args.threads)
    rows = [row for name in args.codecs for batch in args.batch for row in bench(name, batch, args)]
    streams = [stream(name, 100) for name in args.codecs if name != "dac"]  # DAC looks ahead
    if args.json:
        print(json.dumps({"files": rows, "streams": streams}))
        return
    show(rows, streams)


def show(rows: list[Row], streams: list[Row]) -> None:
    """As tables."""
    heads = ("codec", "job", "precision", "GFLOP/s of audio", "transformers", "rate", "x", "share", "codes", "wave")
    files = Table(*heads)
    for row in rows:
        gain, share = row["rate"] / row["transformers"], row["gflop_s"] / row["product_gflop_s"]
        numbers = (f"{row['gflop']:.1f}", f"{row['transformers']:.1f}", f"{row['rate']:.1f}", f"{gain:.2f}")
        equal = f"{row['codes_equal']:.4f}" + (f" (first {row['first_equal']:.3f})" if "first_equal" in row else "")
        name = f"{row['codec']} x {row['batch']}"
        wave = f"{row['wave_difference']:.0e}"
        files.add_row(name, row["job"], row["precision"], *numbers, f"{share:.0%}", equal, wave)
    steps = Table("codec", "frame ms", "latency ms", "encode ms", "decode ms", "slowest ms", "rate")
    for row in streams:
        keys = ("frame_ms", "latency_ms", "encode_ms", "decode_ms", "slowest_ms", "rate")
        steps.add_row(row["codec"], *(f"{row[key]:.1f}" for key in keys))
    Console(width=140).print(files, steps)


if __name__ == "__main__":
    main()
