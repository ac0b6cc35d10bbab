"""Loss and accuracies, averaged over the images of many batches."""

import numpy as np


class Metrics:
    """Mean loss, accuracy and top-5 accuracy of all images seen so far.

    Of classes that tie, the one with the lower number counts as ahead, as in argmax; NaN is never a hit.
    """

    def __init__(self) -> None:
        self.images, self._loss, self._first, self._top5 = 0, 0.0, 0, 0

    def update(self, loss: float, logits: np.ndarray, labels: np.ndarray) -> None:
        """Add a batch: its mean loss, logits (N, K), labels (N,)."""
        own = logits[np.arange(len(labels)), labels][:, None]
        earlier = np.arange(logits.shape[1]) < labels[:, None]
        ahead = (~(logits <= own) | ((logits == own) & earlier)).sum(1)
        self.images += len(labels)
        self._loss += loss * len(labels)
        self._first += int((ahead == 0).sum())
        self._top5 += int(((ahead < 5) & np.isfinite(own[:, 0])).sum())

    @property
    def loss(self) -> float:
        return self._loss / max(self.images, 1)

    @property
    def accuracy(self) -> float:
        return self._first / max(self.images, 1)

    @property
    def top5(self) -> float:
        return self._top5 / max(self.images, 1)
