"""Normalisation: over the batch, with the addition and the ReLU that usually follow it fused in, and over
neighbouring channels."""

from typing import Any

import numpy as np

from minidl import backend
from minidl.autograd import Tensor
from minidl.backend import Array
from minidl.errors import DeviceError, DTypeError, ShapeError
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
    in training with one value per channel. DTypeError for statistics that are no array of floats.
    """
    running_mean, running_var = (r.data if isinstance(r, Tensor) else r for r in (running_mean, running_var))
    _check(x, gamma, beta, running_mean, running_var, residual)
    if not eps >= 0:
        raise ValueError(f"batch_norm: eps is {eps}, it must be at least 0")
    check_activation("batch_norm", activation)
    xp, relu = backend.of(x), activation == "relu"
    if training:
        if x.size == x.shape[3]:
            raise ShapeError(
                f"batch_norm: x of shape {x.shape} has one value per channel, whose variance says nothing; "
                f"train on larger batches or images, or call eval() first"
            )
        mean, inv_std = xp.batch_statistics(x, running_mean, running_var, momentum, eps)
    else:
        mean, inv_std = xp.cast(running_mean, x.dtype), _inverse_std(xp.cast(running_var, x.dtype), eps)
    y = xp.normalize(x, mean, inv_std, gamma, beta, residual, relu)
    # What passes the ReLU is needed as an array by the residual alone; the others see it in x as they go.
    arriving = shared(lambda g: xp.relu_grad(g, y)) if relu and residual is not None else (lambda g: g)
    statistics = x, mean, inv_std, gamma, beta, relu and residual is None, training
    gradients = shared(lambda g: xp.normalize_grad(arriving(g), *statistics))

    def grad_x(g: Array) -> Array:
        return gradients(g)[0]

    def grad_gamma(g: Array) -> Array:
        return gradients(g)[1]

    def grad_beta(g: Array) -> Array:
        return gradients(g)[2]

    def grad_residual(g: Array) -> Array:
        return arriving(g)

    return y, (grad_x, grad_gamma, grad_beta, grad_residual)


def _inverse_std(var: Array, eps: float) -> Array:
    xp = backend.of(var)
    return xp.div(1.0, xp.sqrt(xp.add(var, eps)))


def _check(
    x: Array, gamma: Array, beta: Array, running_mean: Array, running_var: Array, residual: Array | None
) -> None:
    check_image("batch_norm", x, gamma.size, f"gamma has {gamma.size} (shape {gamma.shape})")
    c = x.shape[3]
    for name, statistic in (("running_mean", running_mean), ("running_var", running_var)):
        if not backend.is_array(statistic) or statistic.dtype.kind != "f":
            kind = statistic.dtype if backend.is_array(statistic) else f"a {type(statistic).__name__}"
            raise DTypeError(
                f"batch_norm: {name} is {kind}; give an array or a Tensor of floats, training writes into it"
            )
        if backend.device_of(statistic) != backend.device_of(x):
            raise DeviceError(
                f"batch_norm: {name} is on {backend.device_of(statistic)!r}, but x is on "
                f"{backend.device_of(x)!r}; move the layer with .to(device=...)"
            )
    values = {"gamma": gamma, "beta": beta, "running_mean": running_mean, "running_var": running_var}
    for name, value in values.items():
        if value.shape != (c,):
            raise ShapeError(
                f"batch_norm: {name} has shape {value.shape}, it must be ({c},) for x of shape {x.shape}"
            )
    if residual is not None and residual.shape != x.shape:
        raise ShapeError(f"batch_norm: residual has shape {residual.shape}, it must equal x's {x.shape}")


@op
def local_response_norm(
    x: Array,
    size: int,
    *,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    divide_alpha: bool = True,
) -> Any:
    """Divide by a power of the energy in neighbouring channels.  (N, H, W, C) -> (N, H, W, C)

    y_c = x_c / s_c^beta with s_c = k + a * (sum of x_j^2 over the `size` channels j around c); channels that
    do not exist count as 0. a is alpha / size (Caffe, PyTorch, ONNX), or alpha itself without `divide_alpha`
    (the paper; TensorFlow, whose size is 2 depth_radius + 1). grad_x_c = g_c / s_c^beta - 2 a beta x_c (sum
    over the same j of g_j x_j / s_j^(beta + 1)). Krizhevsky, Sutskever and Hinton 2012, "ImageNet
    classification with deep convolutional neural networks", section 3.3. ValueError for a size that is not
    odd, or a negative alpha or k.
    """
    check_image("local_response_norm", x)
    check_response("local_response_norm", size, alpha, k)
    xp, a = backend.of(x), alpha / size if divide_alpha else alpha

    def grad_x(g: Array) -> Array:
        return xp.local_response_norm_grad(g, x, size, a, beta, k)

    return xp.local_response_norm(x, size, a, beta, k), (grad_x,)


def check_response(op_name: str, size: int, alpha: float, k: float) -> None:
    """ValueError for a window without a middle, or where a negative number could be raised to a power."""
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
        raise ValueError(f"{op_name}: size is {size!r}, it must be an odd number of channels, at least 1")
    if size % 2 == 0:
        half = size // 2
        raise ValueError(
            f"{op_name}: size is {size}, it must be odd: of the neighbours c-{half} .. c+{half} of channel c "
            f"an even window lacks one, and frameworks differ in which (PyTorch c+{half}, ONNX c-{half}). "
            f"Give {size + 1} for all of them, or {size - 1}"
        )
    if not alpha >= 0 or not k >= 0:
        raise ValueError(
            f"{op_name}: alpha is {alpha} and k is {k}; both must be at least 0, for k + alpha * energy is "
            "raised to a power"
        )
