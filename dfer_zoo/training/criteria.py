"""Published regression losses. Outputs and targets are (B, dimensions)."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor


def ccc_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """1 minus the concordance correlation coefficient over the batch, averaged over dimensions; biased moments, as published."""
    outputs, targets = outputs.float(), targets.float()
    means = outputs.mean(0), targets.mean(0)
    covariance = ((outputs - means[0]) * (targets - means[1])).mean(0)
    variances = outputs.var(0, correction=0) + targets.var(0, correction=0)
    return 1 - (2 * covariance / (variances + (means[0] - means[1]) ** 2)).mean()


def pcc_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """1 minus Pearson's correlation over the batch, averaged over dimensions."""
    outputs, targets = outputs.float(), targets.float()
    covariance = ((outputs - outputs.mean(0)) * (targets - targets.mean(0))).mean(0)
    spread = (outputs.var(0, correction=0) * targets.var(0, correction=0)).sqrt()
    return 1 - (covariance / (spread + 1e-6)).mean()


# name -> (outputs, targets) -> loss
REGRESSION: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": F.mse_loss,
    "l1": F.l1_loss,
    "smooth_l1": F.smooth_l1_loss,
    "ccc": ccc_loss,
    "pcc": pcc_loss,
}
