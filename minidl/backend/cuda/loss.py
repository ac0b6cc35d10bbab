"""Softmax cross-entropy on the GPU: kernels/loss.cu. Loss and gradient from one launch over the logits.

Labels come from the host, so all that depends on them alone is computed there: nothing waits for the GPU.
"""

import numpy as np

from minidl.backend import Array
from minidl.backend.cuda.device import runtime_of
from minidl.backend.cuda.elementwise import instance
from minidl.backend.cuda.launch import THREADS, blocks_for, kernel, launch
from minidl.backend.cuda.move import contiguous
from minidl.backend.cuda.reduce import lanes

_CROSS_ENTROPY = {np.dtype(np.float32): kernel("loss.cu", "cross_entropy")}


def cross_entropy(
    logits: Array,
    labels: np.ndarray,
    counted: np.ndarray,
    class_weight: np.ndarray,
    label_smoothing: float,
) -> tuple[Array, Array, np.ndarray]:
    """Loss of each row, its gradient by the logits, and the weight of its label.  (N, K), (N,) -> (N,), (N,
    K), (N,)

    loss = -sum_k q_k log p_k with p = softmax(logits) and q_k = w_k ((1 - s) [k = label] + s / K), s the
    smoothing, w the class weights; gradient = p * sum_k q_k - q. Rows that are not `counted` have loss,
    gradient and weight 0. The weights are an array of the host, like those of the classes.
    """
    n, k = logits.shape
    found, runtime = instance(_CROSS_ENTROPY, logits.dtype, "cross_entropy"), runtime_of(logits)
    picked = np.where(counted, labels, 0).astype(np.int32)  # whatever the others hold
    losses, grad = runtime.empty((n,), logits.dtype), runtime.empty((n, k), logits.dtype)
    if n:
        asked = runtime.upload(np.where(counted, picked, np.int32(-1)))
        weights = None if (class_weight == 1).all() else runtime.upload(class_weight)
        shares, width = (1 - label_smoothing, label_smoothing / k), lanes(k)
        inputs = contiguous(logits), asked, weights
        blocks = blocks_for(n, THREADS // width)
        launch(found, runtime, blocks, *inputs, *shares, losses, grad, n, k, width)
    return losses, grad, class_weight[picked] * counted
