"""Weights spread over processes: the layer's, the frozen base's, and whole again for an export.

Strategies are told apart by what they make of the weights, never by name.
"""

import torch
from lightning.pytorch.strategies import FSDPStrategy, Strategy
from torch import Tensor, nn
from torch.distributed import get_world_size, is_available, is_initialized
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from transformers import PreTrainedModel

from dlmjoint.errors import ConfigError
from dlmjoint.models.joint import JointSampler
from dlmjoint.models.load import Loading
from dlmjoint.models.transformer import TransformerBase


def shard_layer(sampler: JointSampler, device: torch.device) -> None:
    """Spread the layer's weights, gradients and optimizer state over all processes (FSDP2, arXiv
    2304.11277 and its successor `torch.distributed.fsdp.fully_shard`): in place.

    The block and the rest are gathered as two units. Whatever a strategy's mesh looks like, its
    processes train on different windows, so all of them share the weights. Both give back what they
    gathered after every pass: a unit that kept it would gather again at different passes in
    different processes, and they would wait for each other forever.
    """
    if isinstance(sampler, FSDPModule):
        return
    mesh = _all_processes(device)
    fully_shard(sampler.block, mesh=mesh, reshard_after_forward=True)
    fully_shard(sampler, mesh=mesh, reshard_after_forward=True)


def spare_rotary(strategy: Strategy, sampler: JointSampler, device: torch.device) -> None:
    """Keep the layer's rotary table out of FSDP's first version, whose mixed precision rounds buffers
    where no module is asked; what it does not manage it does not move either."""
    if isinstance(strategy, FSDPStrategy):
        strategy.kwargs["ignored_modules"] = [sampler.rotary]
        sampler.rotary.to(device)


def place_base(
    base: TransformerBase, loading: Loading, sharded: bool, device: torch.device
) -> None:
    """Bring the base to this process's device. Raises ConfigError if one that must not move is not
    there already."""
    if sharded:  # block by block: the whole base is never on the device
        shard_base(base.network, device)
    if not loading.placed:
        nn.Module.to(base.network, device)
    elif base.device != device:
        raise ConfigError(
            f"the base lies on {base.device}, this process trains on {device}: give "
            f'loading.device_map as "{device}"'
        )


def shard_base(network: PreTrainedModel, device: torch.device) -> None:
    """Spread the frozen blocks over all processes, each gathered while it computes: in place.

    Embedding, norm and head stay whole. They are called as often as a process has cells, and what
    gathers weights must be called equally often everywhere. Raises ConfigError without processes.
    """
    if not (is_available() and is_initialized()):
        raise ConfigError(
            "shard_base spreads the base over processes, and there is only this one: choose "
            "trainer.strategy ddp or a sharded one, or leave shard_base out"
        )
    mesh = _all_processes(device)
    for block in network.model.layers:
        if not isinstance(block, FSDPModule):
            # A block is called by itself, so each is a root of its own: say that it gives back.
            fully_shard(block, mesh=mesh, reshard_after_forward=True)


def _all_processes(device: torch.device) -> DeviceMesh:
    return init_device_mesh(device.type, (get_world_size(),))


def whole_weights(model: nn.Module, sampler: JointSampler) -> dict[str, Tensor]:
    """The layer's weights as one state dict on the CPU, in the precision they are trained in.

    `model` is the strategy's wrapping of the module that holds the sampler as `sampler`. All
    processes must ask together; the first one is answered, others may get nothing.
    """
    parameters = dict(sampler.named_parameters())
    if any(_is_deepspeed(parameter) for parameter in parameters.values()):
        from deepspeed.utils import safe_get_full_fp32_param

        whole = {}
        for name, parameter in parameters.items():
            weight = safe_get_full_fp32_param(parameter)
            assert weight is not None, f"DeepSpeed keeps no master copy of {name}"
            whole[name] = weight.detach().cpu()
        return whole
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state = get_model_state_dict(model, options=options)
    return {
        name.removeprefix("sampler."): weight
        for name, weight in state.items()
        if name.startswith("sampler.") and isinstance(weight, Tensor)
    }


def _is_deepspeed(parameter: nn.Parameter) -> bool:
    """Whether the parameter is a stand-in for DeepSpeed's master copy: partitioned (ZeRO-3) or
    linked to a shard of the optimizer's (ZeRO-1, ZeRO-2)."""
    return hasattr(parameter, "ds_id") or hasattr(parameter, "_hp_mapping")
