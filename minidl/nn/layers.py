"""The layers: their parameters, and one op call each."""

from typing import Any

import numpy as np

from minidl import ops
from minidl.autograd import Tensor
from minidl.nn import init
from minidl.nn.module import Module, Parameter
from minidl.ops.conv import check_activation
from minidl.ops.norm import check_response
from minidl.window import Padding, Pair, pair


def check_sizes(layer: str, **sizes: int) -> None:
    """ValueError unless every size is an integer of at least 1."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
            raise ValueError(f"{layer}: {name} is {size!r}, it must be an integer of at least 1")


class Conv2d(Module):
    """2-D convolution.  (N, H, W, in_channels) -> (N, OH, OW, out_channels)

    Learns weight (KH, KW, in_channels/groups, out_channels), He normal, and bias (out_channels,), zeros.
    Arguments as `ops.conv2d`. ValueError unless groups divides both channel counts.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Padding = 0,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = True,
        activation: str | None = None,
    ) -> None:
        check_sizes("Conv2d", in_channels=in_channels, out_channels=out_channels, groups=groups)
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"Conv2d: groups is {groups}, it must divide in_channels {in_channels} and out_channels "
                f"{out_channels}"
            )
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size = pair(kernel_size, "Conv2d", "kernel_size")
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.groups, self.activation = groups, activation
        check_activation("Conv2d", activation)
        self.weight = Parameter(init.he_normal((*self.kernel_size, in_channels // groups, out_channels)))
        self.bias = Parameter(init.zeros((out_channels,))) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return ops.conv2d(
            x,
            self.weight,
            self.bias,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            activation=self.activation,
        )

    def options(self) -> str:
        shown = f"{self.in_channels}, {self.out_channels}, {self.kernel_size}"
        for name, default in (
            ("stride", 1),
            ("padding", 0),
            ("dilation", 1),
            ("groups", 1),
            ("activation", None),
        ):
            if getattr(self, name) != default:
                shown += f", {name}={getattr(self, name)!r}"
        return shown + ("" if self.bias is not None else ", bias=False")


class Linear(Module):
    """Fully connected layer.  (N, in_features) -> (N, out_features)

    Learns weight (in_features, out_features), He normal, and bias (out_features,), zeros.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        check_sizes("Linear", in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter(init.he_normal((in_features, out_features)))
        self.bias = Parameter(init.zeros((out_features,))) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return ops.linear(x, self.weight, self.bias)

    def options(self) -> str:
        return f"{self.in_features}, {self.out_features}" + ("" if self.bias is not None else ", bias=False")


class BatchNorm2d(Module):
    """Batch normalisation.  (N, H, W, num_features) -> the same; see `ops.batch_norm`.

    Learns weight (gamma, ones) and bias (beta, zeros), both (num_features,); keeps running_mean (zeros) and
    running_var (ones), which move by `momentum` towards each training batch's and are used in evaluation.
    """

    running_mean: np.ndarray
    running_var: np.ndarray

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, activation: str | None = None
    ) -> None:
        self.num_features, self.eps, self.momentum, self.activation = num_features, eps, momentum, activation
        self.weight = Parameter(init.ones((num_features,)))
        self.bias = Parameter(init.zeros((num_features,)))
        self.register_buffer("running_mean", init.zeros((num_features,)))
        self.register_buffer("running_var", init.ones((num_features,)))

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        return ops.batch_norm(
            x,
            self.weight,
            self.bias,
            self.running_mean,
            self.running_var,
            training=self.training,
            momentum=self.momentum,
            eps=self.eps,
            activation=self.activation,
            residual=residual,
        )

    def options(self) -> str:
        shown = f"{self.num_features}, eps={self.eps}, momentum={self.momentum}"
        return shown + (f", activation={self.activation!r}" if self.activation else "")


class LocalResponseNorm(Module):
    """Division by a power of the energy in `size` neighbouring channels.  (N, H, W, C) -> (N, H, W, C)

    alpha is divided by size, or not (the paper's convention) without `divide_alpha`; see
    `ops.local_response_norm`. ValueError unless size is odd.
    """

    def __init__(
        self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0, divide_alpha: bool = True
    ) -> None:
        check_response("LocalResponseNorm", size, alpha, k)
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k
        self.divide_alpha = divide_alpha

    def forward(self, x: Tensor) -> Tensor:
        return ops.local_response_norm(
            x, self.size, alpha=self.alpha, beta=self.beta, k=self.k, divide_alpha=self.divide_alpha
        )

    def options(self) -> str:
        shown = f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
        return shown + ("" if self.divide_alpha else ", divide_alpha=False")


class MaxPool2d(Module):
    """Largest of each window.  (N, H, W, C) -> (N, OH, OW, C); see `ops.max_pool2d`."""

    def __init__(
        self, kernel_size: Pair, stride: Pair | None = None, padding: Padding = 0, ceil_mode: bool = False
    ) -> None:
        self.kernel_size, self.padding, self.ceil_mode = kernel_size, padding, ceil_mode
        self.stride = kernel_size if stride is None else stride

    def forward(self, x: Tensor) -> Tensor:
        return ops.max_pool2d(
            x, self.kernel_size, stride=self.stride, padding=self.padding, ceil_mode=self.ceil_mode
        )

    def options(self) -> str:
        return f"{self.kernel_size}, stride={self.stride}, padding={self.padding}" + (
            ", ceil_mode=True" if self.ceil_mode else ""
        )


class AvgPool2d(Module):
    """Mean of each window.  (N, H, W, C) -> (N, OH, OW, C); see `ops.avg_pool2d`."""

    def __init__(
        self,
        kernel_size: Pair,
        stride: Pair | None = None,
        padding: Padding = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        self.kernel_size, self.padding, self.ceil_mode = kernel_size, padding, ceil_mode
        self.stride, self.count_include_pad = kernel_size if stride is None else stride, count_include_pad

    def forward(self, x: Tensor) -> Tensor:
        return ops.avg_pool2d(
            x,
            self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            ceil_mode=self.ceil_mode,
            count_include_pad=self.count_include_pad,
        )

    def options(self) -> str:
        shown = f"{self.kernel_size}, stride={self.stride}, padding={self.padding}" + (
            ", ceil_mode=True" if self.ceil_mode else ""
        )
        return shown + ("" if self.count_include_pad else ", count_include_pad=False")


class AdaptiveAvgPool2d(Module):
    """Means over a fixed number of bins.  (N, H, W, C) -> (N, OH, OW, C); see `ops.adaptive_avg_pool2d`."""

    def __init__(self, output_size: Pair) -> None:
        self.output_size = output_size

    def forward(self, x: Tensor) -> Tensor:
        return ops.adaptive_avg_pool2d(x, self.output_size)

    def options(self) -> str:
        return f"{self.output_size}"


class GlobalAvgPool(Module):
    """Mean over rows and columns.  (N, H, W, C) -> (N, C)"""

    def forward(self, x: Tensor) -> Tensor:
        return ops.global_avg_pool(x)


class Dropout(Module):
    """In training, zero each element with probability p and scale the others by 1 / (1 - p).  Any shape.

    Identity in evaluation; see `ops.dropout`.
    """

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"Dropout: p is {p}, it must be a probability: 0 <= p <= 1")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return ops.dropout(x, self.p, training=self.training)

    def options(self) -> str:
        return f"p={self.p}"


class ReLU(Module):
    """max(x, 0).  Any shape."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.relu(x)


class Flatten(Module):
    """(N, H, W, C) -> (N, H*W*C), in memory order."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.flatten(x)


class Identity(Module):
    """Its input, unchanged."""

    def forward(self, x: Any) -> Any:
        return x
