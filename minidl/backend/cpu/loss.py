"""Softmax cross-entropy on the CPU: loss and gradient from one pass over the logits.

The arrays are (N, K), small next to any convolution, so this is plain NumPy.
"""

import numpy as np

from minidl.backend.cpu.elementwise import log_softmax


def cross_entropy(
    logits: np.ndarray,
    labels: np.ndarray,
    counted: np.ndarray,
    class_weight: np.ndarray,
    label_smoothing: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Loss of each row, its gradient by the logits, and the weight of its label.  (N, K), (N,) -> (N,), (N,
    K), (N,)

    loss = -sum_k q_k log p_k with p = softmax(logits) and q_k = w_k ((1 - s) [k = label] + s / K), s the
    smoothing, w the class weights; gradient = p * sum_k q_k - q. Rows that are not `counted` have loss,
    gradient and weight 0.
    """
    n, k = logits.shape
    rows = np.arange(n)
    picked = np.where(counted, labels, 0)
    target = np.broadcast_to(class_weight * logits.dtype.type(label_smoothing / k), (n, k)).copy()
    weight = class_weight[picked] * counted
    target[rows, picked] += class_weight[picked] * logits.dtype.type(1 - label_smoothing)
    target *= counted[:, None]
    log_p = log_softmax(logits, 1)
    losses = -np.where(target == 0, 0, target * log_p).sum(
        1
    )  # 0 * -inf is 0 here: the class is not asked for
    grad = np.exp(log_p) * target.sum(1, keepdims=True) - target
    losses[~counted] = 0  # whatever their logits hold
    grad[~counted] = 0
    return losses, grad, weight
