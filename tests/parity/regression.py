"""The published losses and metrics of HiCMAE's regression. Recipes only train classifiers.

Outputs and targets are (clips, dimensions).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
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


def regression_metrics(outputs: np.ndarray, targets: np.ndarray) -> dict[str, np.ndarray]:
    """Compute metrics of continuous outputs, such as arousal and valence.

    Args:
        outputs: (clips, dimensions).
        targets: The same shape.

    Returns:
        One value per dimension for each of "acc" (1 minus the mean absolute error), "mae", "mse", "rmse", "pcc" (Pearson's
        correlation) and "ccc" (concordance, with unbiased moments).

    >>> regression_metrics(np.array([[0.0], [1.0]]), np.array([[0.0], [2.0]]))["mae"].tolist()
    [0.5]
    """
    outputs, targets = np.asarray(outputs, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    errors = outputs - targets
    deviations = outputs - outputs.mean(0), targets - targets.mean(0)
    covariance = (deviations[0] * deviations[1]).sum(0) / (len(outputs) - 1)
    variances = outputs.var(0, ddof=1), targets.var(0, ddof=1)
    return {
        "acc": 1 - np.abs(errors).mean(0),
        "mae": np.abs(errors).mean(0),
        "mse": (errors**2).mean(0),
        "rmse": np.sqrt((errors**2).mean(0)),
        "pcc": covariance / np.sqrt(variances[0] * variances[1]),
        "ccc": 2 * covariance / (variances[0] + variances[1] + errors.mean(0) ** 2),
    }
