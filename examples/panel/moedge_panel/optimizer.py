"""Muon for hidden matrices, AdamW for the rest.

Muon: Keller Jordan, "Muon: An optimizer for hidden layers in neural networks" (2024): momentum, then the update is
replaced by its nearest semi-orthogonal matrix, found by five Newton-Schulz steps.
"""

import torch
from torch import Tensor, nn

_QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalise(update: Tensor) -> Tensor:
    """Nearest semi-orthogonal matrices of [..., rows, columns], approximately, in bfloat16."""
    x = update.to(torch.bfloat16)
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.transpose(-1, -2)
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    a, b, c = _QUINTIC
    for _ in range(5):
        gram = x @ x.transpose(-1, -2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = (x.transpose(-1, -2) if tall else x).float()
    return result


def _blocks(name: str, parameter: Tensor) -> int:
    """Number of row blocks a matrix really consists of: q, k and v share one, gate and up share one."""
    return 3 if name.endswith("qkv.weight") else 2 if name.endswith("gate_up_proj") else 1


class MuonAdamW:
    """Both optimizers over one model.

    Args:
        named: Names and parameters.
        muon_rate: Peak learning rate of Muon (updates have root mean square 0.2 times the rate).
        adam_rate: Peak learning rate of AdamW.
        decay: Weight decay of matrices, per unit of learning rate.
    """

    def __init__(self, named: list[tuple[str, nn.Parameter]], muon_rate: float, adam_rate: float, decay: float) -> None:
        self._muon: list[tuple[str, nn.Parameter, Tensor]] = []
        adam: list[nn.Parameter] = []
        plain: list[nn.Parameter] = []
        for name, parameter in named:
            inner = ("blocks." in name or "layers." in name or "merger" in name) and "mlp.gate.weight" not in name
            if parameter.ndim in (2, 3) and inner:
                self._muon.append((name, parameter, torch.zeros_like(parameter)))
            elif parameter.ndim >= 2:
                adam.append(parameter)
            else:
                plain.append(parameter)
        self._adam = torch.optim.AdamW(
            [{"params": adam, "weight_decay": decay}, {"params": plain, "weight_decay": 0.0}],
            lr=adam_rate,
            betas=(0.9, 0.95),
            fused=True,
        )
        self._muon_rate, self._adam_rate, self._decay = muon_rate, adam_rate, decay

    @torch.no_grad()
    def step(self, scale: float, momentum: float = 0.95) -> None:
        """Updates all parameters that have a gradient at `scale` times the peak rates and clears the gradients."""
        for group in self._adam.param_groups:
            group["lr"] = self._adam_rate * scale
        self._adam.step()
        self._adam.zero_grad()
        rate = self._muon_rate * scale
        for name, parameter, velocity in self._muon:
            if parameter.grad is None:
                continue
            velocity.lerp_(parameter.grad, 1 - momentum)
            update = parameter.grad.lerp(velocity, momentum)
            parameter.grad = None
            blocks = _blocks(name, parameter)
            if "merger" in name and parameter.shape[-2] == parameter.shape[-1]:
                # Columns of a merger belong to four patches: four matrices, and a quarter of the work.
                split = update.view(parameter.shape[0], 4, -1).transpose(0, 1)
                update = orthogonalise(split).transpose(0, 1).reshape(parameter.shape)
                longest = parameter.shape[0]
            else:
                shaped = update.view(*update.shape[:-2], blocks, update.shape[-2] // blocks, update.shape[-1])
                update = orthogonalise(shaped).view_as(parameter)
                longest = max(parameter.shape[-2] // blocks, parameter.shape[-1])
            parameter.mul_(1 - rate * self._decay)
            parameter.add_(update, alpha=-rate * 0.2 * longest**0.5)
