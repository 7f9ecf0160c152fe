"""Files of EnCodec and DAC: written here as their formats say, read; hostile ones give one line and run nothing."""

import json
import math
import os
import pickletools
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codeczoo.core.errors import FormatError, InputError
from codeczoo.io import dac_file, ecdc


def packed(codes: np.ndarray, bits: int = 10) -> bytes:
    """EnCodec's BitPacker, one value after the other into a number that grows from its low end; codes (K, T)."""
    out, current, held = bytearray(), 0, 0
    for value in codes.T.reshape(-1):  # frame by frame, coarse to fine
        current |= int(value) << held
        held += bits
        while held >= 8:
            out.append(current & 255)
            current >>= 8
            held -= 8
    return bytes(out) + (bytes([current]) if held else b"")


def header(about: dict[str, Any] | str, version: int = 0) -> bytes:
    text = (about if isinstance(about, str) else json.dumps(about)).encode()
    return struct.pack("!4sBI", b"ECDC", version, len(text)) + text


def ecdc_file(name: str, samples: int, windows: list[np.ndarray], scales: list[float] | None = None) -> bytes:
    about = {"m": name, "al": samples, "nc": len(windows[0]), "lm": False}
    parts = [header(about)]
    for i, codes in enumerate(windows):
        parts += [struct.pack("!f", scales[i]) if scales else b"", packed(codes)]
    return b"".join(parts)


def codes_of(k: int, frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1024, (k, frames))


@pytest.mark.parametrize(("k", "samples"), [(1, 1), (2, 320), (8, 321), (32, 48_000), (3, 24_001)])
def test_ecdc_24k(k: int, samples: int) -> None:
    codes = codes_of(k, math.ceil(samples * 75 / 24000))
    file = ecdc.read(ecdc_file("encodec_24khz", samples, [codes]))
    assert (file.samples, file.scales, len(file.windows)) == (samples, None, 1)
    assert np.array_equal(file.windows[0].numpy(), codes)


@pytest.mark.parametrize("samples", [1000, 47_520, 48_000, 100_000])
def test_ecdc_48k_has_windows_with_scales(samples: int) -> None:
    lengths = [min(48_000, samples - start) for start in range(0, samples, 47_520)]
    windows = [codes_of(4, math.ceil(n * 150 / 48000), seed) for seed, n in enumerate(lengths)]
    scales = [0.25 * (i + 1) for i in range(len(windows))]
    file = ecdc.read(ecdc_file("encodec_48khz", samples, windows, scales))
    assert file.scales is not None and file.scales.tolist() == scales
    assert all(np.array_equal(a.numpy(), b) for a, b in zip(file.windows, windows, strict=True))


GOOD = {"m": "encodec_24khz", "al": 640, "nc": 2, "lm": False}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not an .ecdc file"),
        (b"RIFFRIFFRIFF", "not an .ecdc file"),
        (header(GOOD, version=3), "version 3"),
        (header(GOOD)[:-4], "truncated in its header"),
        (header(GOOD), "truncated"),
        (header(GOOD) + bytes(6), "1 bytes too many"),
        (header(GOOD) + bytes(4), "truncated in window 0"),
        (header(GOOD | {"lm": True}) + bytes(5), "language model"),
        (header(GOOD | {"m": "encodec_96khz"}), "only encodec_24khz and encodec_48khz"),
        (header(GOOD | {"m": ["x"]}), "is not known"),
        (header(GOOD | {"nc": 33}), "33 codebooks"),
        (header(GOOD | {"nc": 1.5}), "whole numbers"),
        (header(GOOD | {"al": 10**18}), "truncated"),
        (header(GOOD | {"al": -1}), "at least 1"),
        (header("[1, 2]"), "no JSON object"),
        (header("[" * 60_000), "no JSON object"),
        (header('{"m": '), "no JSON object"),
        (header({"m": "encodec_48khz", "al": 320, "nc": 1, "lm": False}) + b"\x7f\xc0\0\0" + bytes(2), "scale"),
    ],
)
def test_bad_ecdc_files_give_one_line(data: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        ecdc.read(data)
    assert "\n" not in str(caught.value)


def metadata(**changes: Any) -> dict[str, Any]:
    """What DAC writes beside the codes."""
    about = {
        "input_db": np.array([-18.5], dtype=np.float32),
        "original_length": 44_100,
        "sample_rate": 44_100,
        "chunk_length": 72,
        "channels": 1,
        "padding": False,
        "dac_version": "1.0.0",
    }
    return about | changes


def saved(path: Path, found: Any) -> Path:
    with path.open("wb") as file:
        np.save(file, found)
    return path


@pytest.mark.parametrize(
    "codes",
    [
        codes_of(9, 87)[None].astype(np.uint16),
        np.asfortranarray(np.stack([codes_of(9, 87, seed) for seed in range(2)]).astype(np.uint16)),
        codes_of(1, 70_000)[None].astype(np.uint16),  # more than one pickle frame
    ],
)
def test_dac_files_are_read(tmp_path: Path, codes: np.ndarray) -> None:
    about = metadata(channels=len(codes), original_length=np.int64(5), padding=True)
    file = dac_file.read(saved(tmp_path / "a.dac", {"codes": codes, "metadata": about}))
    assert file.codes.dtype == torch.int64 and np.array_equal(file.codes.numpy(), codes)
    assert (file.sample_rate, file.samples, file.channels, file.chunk) == (44_100, 5, len(codes), 72)
    assert file.padding is True and file.loudness.tolist() == [-18.5]


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


def test_a_malicious_pickle_does_not_run(tmp_path: Path) -> None:
    codes, victim = codes_of(9, 8)[None].astype(np.uint16), tmp_path / "pwned"
    for found in (
        Evil(victim),
        {"codes": codes, "metadata": metadata(input_db=Evil(victim))},
        {"codes": codes, "metadata": metadata(), "more": [Evil(victim)]},
    ):
        with pytest.raises(FormatError, match=r"names \w+.system, which is not followed"):
            dac_file.read(saved(tmp_path / "evil.dac", found))
        assert not victim.exists()


ABOUT = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }"
NPY = np.lib.format.magic(1, 0) + struct.pack("<H", len(ABOUT)) + ABOUT
LAUGHS = b"\x80\x04)q\0" + b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(60))  # 2^60 tuples, if looked into


@pytest.mark.parametrize(
    "pickle",
    [
        b"",
        b".",
        b"N.",
        b"\x80\x04cbuiltins\neval\n(X\x01\0\0\0" + b"1tR.",
        b"\x80\x04cnumpy\nndarray\n(tR.",  # an allowed name, called
        b"\x80\x04cnumpy\nload\n(tR.",
        b"\x80\x04}q\0h\0h\0s.",  # a dictionary as its own key
        b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f.",  # 2^63 bytes
        b"\x80\x04r\xff\xff\xff\x7f.",
        b"\x80\x04\x82\x01.",  # an extension code
        b"\x80\x04Q.",  # a persistent id
        b"\x80\x04ibuiltins\neval\n.",
        LAUGHS + b".",
        LAUGHS + b"cnumpy\ndtype\n(h\x3ctR.",
        LAUGHS + b"h\x3c\x93.",  # as a name
        LAUGHS + b"}h\x3cNs.",  # as a key
    ],
)
def test_hostile_pickles_give_one_line(pickle: bytes) -> None:
    with pytest.raises(FormatError, match="pickle") as caught:
        dac_file.read(NPY + pickle)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"x": 1}, "codes and metadata"),
        ([1, 2], "single object"),
        ({"codes": 1}, "codes and metadata"),
        ({"codes": np.zeros((1, 2, 3), np.uint16), "metadata": metadata(dac_version="2")}, "version"),
        ({"codes": np.zeros((2, 3), np.uint16), "metadata": metadata()}, "no whole numbers"),
        ({"codes": np.zeros((1, 2, 3)), "metadata": metadata()}, "no whole numbers"),
        ({"codes": np.zeros((3, 2, 3), np.uint16), "metadata": metadata(channels=2)}, "3 signals do not fit 2"),
        ({"codes": np.zeros((1, 2, 3), np.uint16), "metadata": metadata(sample_rate=-1)}, "sample_rate"),
        ({"codes": np.zeros((1, 2, 3), np.uint16), "metadata": metadata(input_db=[[]])}, "input_db"),
        ({"codes": np.zeros((1, 2, 3), np.uint16), "metadata": metadata(chunk_length=None)}, "chunk_length"),
        ({"codes": np.array([object()]), "metadata": metadata()}, "not followed"),
        ({"codes": np.array([1, "a"], dtype=object), "metadata": metadata()}, "truncated or corrupt"),
        ({"codes": {"a": {"b": {}}}, "metadata": metadata()}, "deep"),
        ({"codes": np.zeros(3, "c8"), "metadata": metadata()}, "numbers of a type"),
    ],
)
def test_what_dac_does_not_write_is_told(tmp_path: Path, found: Any, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        dac_file.read(saved(tmp_path / "a.dac", found))


def test_files_that_are_not_there(tmp_path: Path) -> None:
    for read in (ecdc.read, dac_file.read):
        with pytest.raises(InputError, match=r"gone: No such file"):
            read(tmp_path / "gone")


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_files_raise_nothing_else(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.dac"
    good = saved(path, {"codes": codes_of(2, 5)[None].astype(np.uint16), "metadata": metadata()}).read_bytes()
    if data.draw(st.booleans()):
        good = ecdc_file("encodec_48khz", 60_000, [codes_of(2, 150), codes_of(2, 39)], [1.0, 0.5])
    damaged = bytearray(good)
    for _ in range(data.draw(st.integers(0, 3))):
        damaged[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    damaged = damaged[: data.draw(st.integers(0, len(damaged)))]
    for read in (ecdc.read, dac_file.read):
        try:
            read(bytes(damaged))
        except FormatError as error:
            assert "\n" not in str(error)


def test_the_instructions_that_are_followed_exist() -> None:
    from codeczoo.io import plain_pickle

    known = {opcode.name for opcode in pickletools.opcodes}
    assert {*plain_pickle.PUSHED, *plain_pickle.MADE, *plain_pickle.DONE, *plain_pickle.SKIPPED} <= known
