"""The loss: weighted cross-entropy over the heads, independent of the split into micro-batches."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch.nn import functional


@dataclass(frozen=True)
class Objective:
    """Weighted sum over heads of the mean cross-entropy of an effective batch.

    For one head PyTorch's weighted mean is sum_i(w[y_i] * loss_i) / sum_i(w[y_i]). The denominator is summed over all
    micro-batches and processes first, and each micro-batch adds its numerator over it. The usual average per
    micro-batch gives a row a weight that depends on the other rows of its micro-batch.
    """

    head_weights: Mapping[str, float]
    class_weights: Mapping[str, torch.Tensor]
    label_smoothing: float

    def normalisers(self, labels: Iterable[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor | float]:
        """Return, per head, the sum of class weights over the labels of the micro-batches; there may be none."""
        batches = list(labels)
        return {
            head: sum((weights[batch[head]].sum() for batch in batches), start=weights.new_zeros(()))
            if (weights := self.class_weights.get(head)) is not None
            else float(sum(len(batch[head]) for batch in batches))
            for head in self.head_weights
        }

    def __call__(
        self,
        logits: Mapping[str, torch.Tensor],
        labels: Mapping[str, torch.Tensor],
        normalisers: Mapping[str, torch.Tensor | float],
    ) -> torch.Tensor:
        """Return the contribution of a micro-batch to the loss of its step, (heads,)."""
        shares = []
        for head, weight in self.head_weights.items():
            class_weights = self.class_weights.get(head)
            summed = functional.cross_entropy(
                logits[head], labels[head], class_weights, label_smoothing=self.label_smoothing, reduction="sum"
            )
            shares.append(weight / normalisers[head] * summed)
        return torch.stack(shares)
