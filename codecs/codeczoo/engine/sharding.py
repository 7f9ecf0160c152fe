"""FSDP: weights, gradients and optimizer state of the codec spread over all devices. Adversaries stay whole."""

from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from codeczoo.core.base import Autoencoder, Codec, Quantizer
from codeczoo.core.config import build
from codeczoo.core.errors import ConfigError
from codeczoo.quantizers.vq import VQ


class ShardedStrategy(ModelParallelStrategy):
    """Lightning's strategy for FSDP2, over all devices of all nodes; checkpoints are single files."""

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        """As the parent, with every process in the one data-parallel group."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()


def shard(codec: Autoencoder, mesh: DeviceMesh) -> None:
    """Spreads the codec over `mesh`: each block of a list of blocks by itself, then the rest.

    Raises:
        ConfigError: a codebook that is a parameter, thus spread, and moved by rules as well.
    """
    for name, module in codec.named_modules():
        if isinstance(module, VQ) and module.upkeep is not None:
            kind = type(module.upkeep).__name__
            raise ConfigError(f"{name}: {kind} moves a codebook that FSDP would spread; use trainer=ddp or EMAVQ")
    lists = [module for module in codec.modules() if isinstance(module, nn.ModuleList)]
    for blocks in reversed(lists):  # inner ones first
        for block in blocks:
            # FSDP gathers weights where `forward` is called; quantizers and merges of levels have other ways in.
            if type(block).forward is not nn.Module.forward and not isinstance(block, Quantizer):
                fully_shard(block, mesh=mesh)
    fully_shard(codec, mesh=mesh)
    for method in ("encode", "decode") if isinstance(codec, Codec) else ():
        register_fsdp_forward_method(codec, method)


def forget_gathered(codec: Autoencoder) -> None:
    """Frees what forward passes gathered of a sharded codec, so that the next one sees its present weights."""
    for module in codec.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def whole(codec: Autoencoder) -> Autoencoder:
    """The codec itself, or its copy in one piece when it is sharded. Every rank must call it."""
    state: dict[str, Tensor] = codec.state_dict()
    if not any(isinstance(value, DTensor) for value in state.values()):
        return codec
    full = {name: v.full_tensor().cpu() if isinstance(v, DTensor) else v.cpu() for name, v in state.items()}
    copy: Autoencoder = build(codec.config)
    copy.load_state_dict(full)
    return copy
