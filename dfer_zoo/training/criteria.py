"""The published losses. Targets are class numbers, or soft labels (B, K)."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor


def soft_target_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over the clips of the cross entropy with soft labels (B, K), in float32 under autocast too."""
    return -(targets * F.log_softmax(logits.float(), dim=-1)).sum(-1).mean()


def consistency(logits: Tensor, others: Tensor) -> Tensor:
    """How far one head's probabilities are from another's, as DK-CLIP has it: the probabilities of the first enter a
    cross entropy as if they were logits, and a gradient flows into both."""
    return F.cross_entropy(logits.softmax(-1), others.softmax(-1))


def global_local_loss(logits: Tensor, local_logits: Tensor, targets: Tensor, criterion: Callable) -> Tensor:
    """DK-CLIP's: the criterion on the clip's logits (B, K) and on the sum of its snippets' (B, S, K), and that they agree."""
    local = local_logits.sum(1)
    return criterion(logits, targets) + criterion(local, targets) + consistency(local, logits)
