"""Dropout that draws its mask four values at a time: on a CPU, torch's own draws them one by one."""

import torch
from torch import nn

LEVELS = 1 << 16  # a place is kept or dropped by 16 random bits


class BlockDropout(nn.Dropout):
    """`nn.Dropout` with its mask cut from 64-bit draws of the same generator; on a GPU it is torch's own.

    The chance of dropping is p to the nearest 1/65,536, and what is kept is scaled by exactly that chance, so the
    mean is unchanged.
    """

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the inputs with a random share p of the places at zero and the rest scaled up."""
        dropped = round(self.p * LEVELS)
        if not self.training or not dropped or dropped == LEVELS or inputs.device.type != "cpu":
            return super().forward(inputs)
        draws = torch.empty(-(-inputs.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        kept = draws[: inputs.numel()].view(inputs.shape) >= dropped - LEVELS // 2
        return inputs * kept.to(inputs.dtype).mul_(LEVELS / (LEVELS - dropped))


def use_block_dropout(model: nn.Module) -> None:
    """Put `BlockDropout` in the place of every `nn.Dropout` of the model."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, BlockDropout(child.p).train(child.training))
