"""S2D's self-distillation: soft targets from stored clips of every class, the emotion anchors."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..weights.record import check_count


class EmotionAnchors(nn.Module):
    """Queues of features per class, with the probabilities that the model predicted for them: soft targets for new clips.

    Both queues start with random values.
    """

    features: Tensor
    probabilities: Tensor

    def __init__(self, num_classes: int, width: int, size: int, nearest: int = 2) -> None:
        super().__init__()
        check_count("anchors", size)
        self.nearest = nearest
        self.register_buffer("features", torch.empty(num_classes, size, width))
        self.register_buffer("probabilities", torch.empty(num_classes, size, num_classes))

    def init_weights(self) -> None:
        """Uniform random numbers, as published."""
        nn.init.uniform_(self.features)
        nn.init.uniform_(self.probabilities)

    @torch.no_grad()
    def soft_targets(self, features: Tensor) -> Tensor:
        """(B, width) -> (B, classes): the probabilities of the nearest anchors of each class, weighted by similarity."""
        anchors = F.normalize(self.features, dim=-1)
        similarity = torch.einsum("bd,cqd->bcq", F.normalize(features.to(anchors), dim=-1), anchors)
        weights, places = similarity.topk(self.nearest, dim=-1)  # (B, classes, nearest)
        classes = torch.arange(len(anchors), device=places.device)[None, :, None]
        mixed = torch.einsum("bcq,bcqk->bk", weights, self.probabilities[classes, places])
        return mixed / weights.sum((1, 2))[:, None]

    def loss(self, features: Tensor, logits: Tensor) -> Tensor:
        """Binary cross entropy of every class against the soft targets, in float32 even under autocast."""
        return F.binary_cross_entropy_with_logits(logits.float(), self.soft_targets(features))

    @torch.no_grad()
    def push(self, features: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Append each clip to the queue of its class and drop the oldest entry."""
        for feature, probability, label in zip(features, logits.float().softmax(-1), labels.tolist()):
            for queue, entry in ((self.features, feature), (self.probabilities, probability)):
                queue[label] = torch.cat([queue[label, 1:], entry[None].to(queue)])


def distillation_weight(epoch: int) -> float:
    """The weight of the distillation loss in an epoch, counted from 0.

    Examples:
        >>> [distillation_weight(epoch) for epoch in (0, 29, 30, 50, 60, 80)]
        [0.0, 0.0, 0.01, 0.1, 0.5, 1.0]
    """
    steps = ((80, 1.0), (60, 0.5), (50, 0.1), (30, 0.01))
    return next((weight for first, weight in steps if epoch >= first), 0.0)
