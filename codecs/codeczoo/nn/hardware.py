"""What the processor can do."""

import torch


def bf16_is_fast(device: torch.device | str) -> bool:
    """Whether bf16 pays: on any GPU, and on processors with AMX or AVX-512 bf16 instructions.

    Elsewhere it is emulated: a matrix product took 40 times as long as in float32 on an AVX2 machine.
    """
    if torch.device(device).type != "cpu":
        return True
    can = torch.cpu.get_capabilities()
    return bool(can.get("amx_bf16") or can.get("avx512_bf16"))
