"""Batch normalisation, with the addition and the ReLU that usually follow it fused in."""

from typing import Any

from minidl import backend
from minidl.autograd import Tensor
from minidl.backend import Array
from minidl.errors import ShapeError
from minidl.ops._shapes import check_image
from minidl.ops.conv import check_activation
from minidl.recording import op, shared


@op
def batch_norm(
    x: Array,
    gamma: Array,
    beta: Array,
    running_mean: Any,
    running_var: Any,
    *,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
    activation: str | None = None,
    residual: Array | None = None,
) -> Any:
    """Normalise each channel over the batch.  (N, H, W, C), (C,), (C,) -> (N, H, W, C)

    y = act(gamma * (x - mean) / sqrt(var + eps) + beta + residual). In training, mean and var are the batch's
    (var divided by M = N*H*W), and the running statistics (arrays or Tensors) become (1 - momentum) * running
    + momentum * batch in place, with var divided by M - 1 there, as in PyTorch. Otherwise the running
    statistics are used, and they are constants to the gradient. Ioffe and Szegedy 2015, arXiv:1502.03167,
    Algorithms 1 and 2. ShapeError unless gamma, beta and the statistics are (C,) and residual has x's shape;
    in training with one value per channel.
    """
    running_mean, running_var = (r.data if isinstance(r, Tensor) else r for r in (running_mean, running_var))
    _check(x, gamma, beta, running_mean, running_var, residual)
    check_activation("batch_norm", activation)
    xp, relu = backend.of(x), activation == "relu"
    if training:
        mean, inv_std = _batch_statistics(x, running_mean, running_var, momentum, eps)
    else:
        mean, inv_std = running_mean.astype(x.dtype), _inverse_std(running_var.astype(x.dtype), eps)
    y = xp.normalize(x, mean, inv_std, gamma, beta, residual, relu)
    arriving = shared(lambda g: xp.relu_grad(g, y)) if relu else (lambda g: g)
    sums = shared(lambda g: xp.normalize_grad_sums(g, x, mean, inv_std))  # (grad_beta, grad_gamma)

    def grad_x(g: Array) -> Array:
        g = arriving(g)
        if training:
            return xp.normalize_grad_x(g, x, mean, inv_std, gamma, *sums(g))
        return xp.mul(g, xp.mul(gamma, inv_std))

    def grad_gamma(g: Array) -> Array:
        return sums(arriving(g))[1]

    def grad_beta(g: Array) -> Array:
        return sums(arriving(g))[0]

    def grad_residual(g: Array) -> Array:
        return arriving(g)

    return y, (grad_x, grad_gamma, grad_beta, grad_residual)


def _batch_statistics(
    x: Array, running_mean: Array, running_var: Array, momentum: float, eps: float
) -> tuple[Array, Array]:
    """(mean, 1 / sqrt(var + eps)) of the batch; the running statistics move towards it."""
    m = x.size // x.shape[3]
    if m == 1:
        raise ShapeError(
            f"batch_norm: x of shape {x.shape} has one value per channel, whose variance says nothing; "
            f"train on larger batches or images, or call eval() first"
        )
    mean, var = backend.of(x).batch_moments(x)
    for running, batch in ((running_mean, mean), (running_var, var * x.dtype.type(m / (m - 1)))):
        running *= 1 - momentum
        running += momentum * batch
    return mean, _inverse_std(var, eps)


def _inverse_std(var: Array, eps: float) -> Array:
    xp = backend.of(var)
    return xp.div(1.0, xp.sqrt(xp.add(var, eps)))


def _check(
    x: Array, gamma: Array, beta: Array, running_mean: Array, running_var: Array, residual: Array | None
) -> None:
    check_image("batch_norm", x, gamma.size, f"gamma has {gamma.size} (shape {gamma.shape})")
    c = x.shape[3]
    for name, value in (
        ("gamma", gamma),
        ("beta", beta),
        ("running_mean", running_mean),
        ("running_var", running_var),
    ):
        if value.shape != (c,):
            raise ShapeError(
                f"batch_norm: {name} has shape {value.shape}, it must be ({c},) for x of shape {x.shape}"
            )
    if residual is not None and residual.shape != x.shape:
        raise ShapeError(f"batch_norm: residual has shape {residual.shape}, it must equal x's {x.shape}")
