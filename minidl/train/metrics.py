"""Loss, accuracies and confusions, over the images of many batches."""

from collections.abc import Mapping
from typing import Any

import numpy as np


class Metrics:
    """Mean loss, accuracy and top-5 accuracy of all images seen so far; on request who is taken for whom.

    Of classes that tie, the one with the lower number counts as ahead, as in argmax; NaN is never a hit, and
    an image with NaN among its logits is taken for no class.
    """

    def __init__(self, *, confusion: bool = False) -> None:
        self.images, self._loss, self._first, self._top5 = 0, 0.0, 0, 0
        self._count = confusion
        self.confusion = np.zeros((0, 0), np.int64)  # (K, K) true class, predicted class
        self._of_class = np.zeros(0, np.int64)  # (K,) images of each true class

    def update(self, loss: float, logits: np.ndarray, labels: np.ndarray) -> None:
        """Add a batch: its mean loss, logits (N, K), labels (N,)."""
        own = logits[np.arange(len(labels)), labels][:, None]
        earlier = np.arange(logits.shape[1]) < labels[:, None]
        ahead = (~(logits <= own) | ((logits == own) & earlier)).sum(1)
        self.images += len(labels)
        self._loss += loss * len(labels)
        self._first += int((ahead == 0).sum())
        self._top5 += int(((ahead < 5) & np.isfinite(own[:, 0])).sum())
        if self._count:
            self._update_confusion(logits, labels)

    def _update_confusion(self, logits: np.ndarray, labels: np.ndarray) -> None:
        if not self.confusion.size:
            k = logits.shape[1]
            self.confusion, self._of_class = np.zeros((k, k), np.int64), np.zeros(k, np.int64)
        self._of_class += np.bincount(labels, minlength=len(self._of_class))
        known = ~np.isnan(logits).any(1)
        np.add.at(self.confusion, (labels[known], logits[known].argmax(1)), 1)

    def result(self) -> dict[str, float]:
        return {"loss": self.loss, "accuracy": self.accuracy, "top5": self.top5}

    def state_dict(self) -> dict[str, float]:
        """The sums so far, as plain numbers."""
        return {"images": self.images, "loss": self._loss, "first": self._first, "top5": self._top5}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.images, self._loss = state["images"], state["loss"]
        self._first, self._top5 = state["first"], state["top5"]

    @property
    def loss(self) -> float:
        return self._loss / max(self.images, 1)

    @property
    def accuracy(self) -> float:
        return self._first / max(self.images, 1)

    @property
    def top5(self) -> float:
        return self._top5 / max(self.images, 1)

    @property
    def per_class(self) -> np.ndarray:
        """The accuracy on each class's images, NaN for a class that has none.  (K,)"""
        hits = self.confusion.diagonal()
        return np.where(self._of_class > 0, hits / np.maximum(self._of_class, 1), np.nan)
