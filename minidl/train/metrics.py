"""Running means of a loss and of accuracies over batches."""

import numpy as np


class Mean:
    """Loss and accuracy over all images seen so far; `top5` too where there are more than five classes."""

    def __init__(self) -> None:
        self.images, self.correct, self.correct5, self._loss = 0, 0, 0, 0.0

    def update(self, loss: float, logits: np.ndarray, labels: np.ndarray) -> None:
        """Add a batch: its mean loss, logits (N, K), labels (N,)."""
        self.images += len(labels)
        self._loss += loss * len(labels)
        self.correct += int((logits.argmax(1) == labels).sum())
        own = logits[np.arange(len(labels)), labels]
        self.correct5 += int(((logits > own[:, None]).sum(1) < 5).sum())

    @property
    def loss(self) -> float:
        return self._loss / max(self.images, 1)

    @property
    def accuracy(self) -> float:
        return self.correct / max(self.images, 1)

    @property
    def top5(self) -> float:
        return self.correct5 / max(self.images, 1)
