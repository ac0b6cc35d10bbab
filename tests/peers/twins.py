"""A network of the zoo beside its PyTorch twin: the same weights in both, how far apart are the results?

The layers with weights pair up one to one in the order they run; only the layout of arrays differs. The twins
are not pooled in front of their fully connected layers, so VGG and AlexNet get that pool here, which is the
identity at their own size, and makes small images possible.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

import minidl as md
import minidl_models
import networks
import torch_nets
from minidl import nn
from quick import quick_draws

BATCH = 2
# Mean of what batch norms add in front of a ReLU. At 0, a plain network multiplies differences by about 1.2 a
# layer on the way back: rounding grows by 1e9 in 110 layers, and PyTorch differs from itself by 2e-6 between
# its two memory formats. Here rounding stays rounding.
SHIFT = 0.3
PAIRS = ((nn.Conv2d, torch.nn.Conv2d), (nn.Linear, torch.nn.Linear), (nn.BatchNorm2d, torch.nn.BatchNorm2d))


class Deviations(NamedTuple):
    """Largest deviations of a network from its twin, each relative to the twin's largest entry.

    eval32, eval64  logits in evaluation mode, by precision; the others are of one training step in float64
    loss            of both the loss and the auxiliary ones, weighted
    auxiliary       logits of the auxiliary classifiers; 0 without
    statistics      running means and variances after the step
    gradient        of any parameter, relative to the larger of its own largest entry and a millionth of the
                    net's largest
    """

    eval32: float
    eval64: float
    loss: float
    auxiliary: float
    statistics: float
    gradient: float


BOUNDS = Deviations(1e-4, 1e-9, 1e-9, 1e-9, 1e-9, 1e-7)


def build_pair(name: str, label: str) -> tuple[Any, Any]:
    """(the network, its twin), auxiliary heads included, with the twin's weights in both; no dropout."""
    call = networks.twins()[name, label]
    heads = {"aux": True} if "aux=True" in call else {}
    with quick_draws():
        net = minidl_models.create(name, **minidl_models.entry(name).variants[label], **heads)
    torch.manual_seed(0)
    twin = eval(call, vars(torch_nets))
    if "flatten" in twin.stages:
        size = net.flattened["fc6.fc"][0]
        twin.stages["flatten"] = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(size), torch.nn.Flatten())
    for module in [*net.modules(), *twin.modules()]:
        if isinstance(module, (nn.Dropout, torch.nn.Dropout)):
            module.p = 0.0
        if isinstance(module, torch.nn.BatchNorm2d):  # as if trained, most ReLUs open (see SHIFT)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, SHIFT, 0.1)
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    copy_weights(net, twin)
    return net, twin


def paired(net: Any, twin: Any) -> list[tuple[str, Any, Any]]:
    """(path, layer, the twin's layer) of all layers with weights.  ValueError unless they pair up."""
    own = [(path, m) for path, m in net.named_modules() if isinstance(m, tuple(k for k, _ in PAIRS))]
    other = [(path, m) for path, m in twin.named_modules() if isinstance(m, tuple(k for _, k in PAIRS))]
    if len(own) != len(other):
        raise ValueError(f"the network has {len(own)} layers with weights, its twin {len(other)}")
    for (path, layer), (twin_path, peer) in zip(own, other):
        same = any(isinstance(layer, k) and isinstance(peer, t) for k, t in PAIRS)
        if not same or (layer.bias is None) != (peer.bias is None):
            raise ValueError(f"{path} {layer} does not pair up with {twin_path} {peer}")
        if isinstance(layer, nn.BatchNorm2d) and (layer.eps, layer.momentum) != (peer.eps, peer.momentum):
            raise ValueError(f"{path} has eps {layer.eps}, momentum {layer.momentum}; {twin_path} {peer}")
    return [(path, layer, peer) for (path, layer), (_, peer) in zip(own, other)]


def copy_weights(net: Any, twin: Any) -> None:
    """Fill the network from its twin.  ValueError if a shape does not fit."""
    for path, layer, peer in paired(net, twin):
        for name in ("weight", "bias", "running_mean", "running_var"):
            value = getattr(peer, name, None)
            if value is None:
                continue
            target = getattr(layer, name)
            array = from_torch(value.detach().numpy(), net.flattened.get(path))
            target = target.data if isinstance(target, md.Tensor) else target
            if target.shape != array.shape:
                raise ValueError(f"{path}.{name} is {target.shape}, the twin's {array.shape}")
            target[...] = array


def from_torch(array: np.ndarray, image: tuple[int, int, int] | None = None) -> np.ndarray:
    """A weight in minidl's layout; image: (H, W, C) of the image that a linear layer reads, flattened."""
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    if array.ndim == 2 and image is not None:
        h, w, c = image
        return array.reshape(-1, c, h, w).transpose(2, 3, 1, 0).reshape(h * w * c, -1)
    return array.T


def off(found: np.ndarray, expected: np.ndarray, scale: float = 0.0) -> float:
    """Largest difference, relative to the largest expected entry or to `scale`, whichever is larger."""
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), scale, 1e-300))


def batch(net: Any, size: int, dtype: str) -> tuple[np.ndarray, torch.Tensor]:
    """The same random images, (N, H, W, C) and (N, C, H, W)."""
    shape = (BATCH, size, size, net.input_shape[2])
    images = np.random.default_rng(1).standard_normal(shape).astype(np.float32).astype(dtype)
    return images, torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def eval_deviation(net: Any, twin: Any, size: int, dtype: str) -> float:
    """Of the logits in evaluation mode, for images of size x size."""
    net.to(dtype=dtype).eval()
    twin.to(getattr(torch, dtype)).eval()
    x, twin_x = batch(net, size, dtype)
    with md.no_grad(), torch.no_grad():
        return off(net(md.tensor(x)).numpy(), twin(twin_x).numpy())


def compare(name: str, label: str) -> Deviations:
    """All deviations of one network, on images as small as it takes with its auxiliary heads."""
    net, twin = build_pair(name, label)
    size = training_size(net)
    eval32 = eval_deviation(net, twin, size, "float32")
    copy_weights(net.to(dtype="float64"), twin.double())
    return Deviations(eval32, eval_deviation(net, twin, size, "float64"), *_step(net, twin, size))


def training_size(net: Any) -> int:
    """Large enough for the auxiliary heads, and for batch norms to see more than one pixel."""
    heads = net.head_sizes[0] if getattr(net, "_heads", None) else 0
    return min(net.input_shape[0], max(64, 3 * (net.smallest or 1) // 2, heads))


def _step(net: Any, twin: Any, size: int) -> tuple[float, float, float, float]:
    """Loss, auxiliary logits, statistics and gradients of a forward and backward pass in training mode."""
    x, twin_x = batch(net, size, "float64")
    labels = (np.arange(BATCH) + 3) % 10
    output, twin_output = net.train()(md.tensor(x)), twin.train()(twin_x)
    logits, auxiliary = output if isinstance(output, tuple) else (output, ())
    twin_logits, twin_auxiliary = twin_output if isinstance(twin_output, tuple) else (twin_output, ())
    if len(auxiliary) != len(twin_auxiliary):
        raise ValueError(f"{len(auxiliary)} auxiliary logits, the twin has {len(twin_auxiliary)}")
    loss = md.ops.cross_entropy(logits, labels)
    twin_loss = F.cross_entropy(twin_logits, torch.from_numpy(labels))
    for y, twin_y in zip(auxiliary, twin_auxiliary):
        loss = loss + net.aux_weight * md.ops.cross_entropy(y, labels)
        twin_loss = twin_loss + twin.aux_weight * F.cross_entropy(twin_y, torch.from_numpy(labels))
    loss.backward()
    twin_loss.backward()
    both = [(y.numpy(), twin_y.detach().numpy()) for y, twin_y in zip(auxiliary, twin_auxiliary)]
    return (
        off(np.asarray(loss.item()), np.asarray(twin_loss.item())),
        max((off(*pair) for pair in both), default=0.0),
        _statistics_deviation(net, twin),
        _gradient_deviation(net, twin),
    )


def _statistics_deviation(net: Any, twin: Any) -> float:
    names = ("running_mean", "running_var")
    norms = [(m, peer) for _, m, peer in paired(net, twin) if isinstance(m, nn.BatchNorm2d)]
    found = [off(getattr(m, name), getattr(peer, name).numpy()) for m, peer in norms for name in names]
    return max(found, default=0.0)


def _gradient_deviation(net: Any, twin: Any) -> float:
    largest = max(float(parameter.grad.abs().max()) for parameter in twin.parameters())
    worst = 0.0
    for path, layer, peer in paired(net, twin):
        for name in ("weight", "bias"):
            if getattr(peer, name) is not None:
                expected = from_torch(getattr(peer, name).grad.numpy(), net.flattened.get(path))
                worst = max(worst, off(getattr(layer, name).grad.data, expected, 1e-6 * largest))
    return worst
