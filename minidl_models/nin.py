"""Network in Network.  Lin, Chen, Yan 2013, arXiv:1312.4400.  Input 32x32x3 (MNIST: 28x28x1).

Each "mlpconv" block is a convolution followed by two 1x1 convolutions, a small network slid over the image
(section 3.1, figure 2); max pooling and dropout stand between the blocks, and the last block's maps, one per
class, are averaged to give the logits (section 3.2): there is no fully connected layer. Every convolution is
followed by a ReLU, the last one included.

The tables are the authors' own definition files (cuda-convnet, NIN/{cifar-10,cifar-100,svhn,mnist}_def).

Departures from the paper:
- `pool="pad1"`: pooling windows start one pixel outside the image; "ceil" is the authors' (from 0, over the
  edge). Same sizes.
- Weights start He normal and the last biases at 5; the authors draw N(0, 0.05) and start at 0. Softmax does
  not see a bias that all classes share, but the last ReLU does: from 0, a class is soon cut off for good, and
  the network stays at chance.
- `batch_norm=True` (not in the paper) normalises after every convolution but the last, and replaces its bias.
  Scores of unit variance would learn slowly: the softmax can only become sure of a class as gamma grows.
- "digits" (8x8 grey images, enlarged to 28x28) has MNIST's widths.
"""

from typing import Any

import numpy as np

from minidl import Model, Tensor, nn
from minidl_models.registry import zoo_model

# dataset: input (H, W, C), kernel size of conv3, widths of the nine convolutions (the last is the number of
# classes), preprocessing
_TABLES: dict[str, tuple[tuple[int, int, int], int, tuple[int, ...], dict[str, Any]]] = {
    "cifar10": (
        (32, 32, 3),
        3,
        (192, 160, 96, 192, 192, 192, 192, 192, 10),
        {"mean": [0.4914, 0.4822, 0.4465], "std": [0.2470, 0.2435, 0.2616]},
    ),
    "cifar100": (
        (32, 32, 3),
        3,
        (192, 160, 96, 192, 192, 192, 192, 192, 100),
        {"mean": [0.5071, 0.4865, 0.4409], "std": [0.2673, 0.2564, 0.2762]},
    ),
    "svhn": (
        (32, 32, 3),
        5,
        (128, 96, 64, 320, 256, 128, 384, 256, 10),
        {"mean": [0.4377, 0.4438, 0.4728], "std": [0.1980, 0.2010, 0.1970]},
    ),
    "mnist": ((28, 28, 1), 5, (96, 64, 48, 128, 96, 48, 128, 96, 10), {"mean": [0.1307], "std": [0.3081]}),
    "digits": (
        (28, 28, 1),
        5,
        (96, 64, 48, 128, 96, 48, 128, 96, 10),
        {"resize": [28, 28], "mean": [0.3053], "std": [0.3760]},
    ),
}


class NIN(Model):
    """Three mlpconv blocks and a global average.  (N, H, W, C) -> logits (N, num_classes)"""

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        conv3_kernel: int,
        widths: tuple[int, ...],
        *,
        pool: str,
        batch_norm: bool,
    ) -> None:
        self.input_shape, self.num_classes = input_shape, widths[-1]
        kernels = (5, 1, 1, 5, 1, 1, conv3_kernel, 1, 1)
        names = ("conv1", "cccp1_1", "cccp1_2", "conv2", "cccp2_1", "cccp2_2", "conv3", "cccp3_1", "cccp3_2")
        layers: dict[str, nn.Module] = {}
        channels = input_shape[2]
        for i, (name, kernel, width) in enumerate(zip(names, kernels, widths)):
            layers[name] = _conv(channels, width, kernel, batch_norm, last=i == len(names) - 1)
            channels = width
            if name in ("cccp1_2", "cccp2_2"):
                block = name[4]
                layers[f"pool{block}"] = (
                    nn.MaxPool2d(3, 2, padding=1) if pool == "pad1" else nn.MaxPool2d(3, 2, ceil_mode=True)
                )
                layers[f"drop{block}"] = nn.Dropout(0.5)
        self.features = nn.Sequential(layers)
        self.gap = nn.GlobalAvgPool()

    def forward(self, x: Tensor) -> Tensor:
        return self.gap(self.features(x))


def _conv(channels: int, width: int, kernel: int, batch_norm: bool, last: bool) -> nn.Module:
    """Convolution at full size, with a ReLU, and batch normalisation in between if asked for."""
    if batch_norm and not last:
        return nn.Sequential(
            {
                "conv": nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False),
                "bn": nn.BatchNorm2d(width, activation="relu"),
            }
        )
    conv = nn.Conv2d(channels, width, kernel, padding=kernel // 2, activation="relu")
    if last and conv.bias is not None:
        conv.bias = nn.Parameter(np.full(conv.bias.shape, 5.0, np.float32))  # see the departures above
    return conv


@zoo_model(paper="Lin et al. 2013, arXiv:1312.4400", year=2013, variants=[*_TABLES])
def nin(
    dataset: str = "cifar10",
    *,
    num_classes: int | None = None,
    variant: str | None = None,
    in_channels: int | None = None,
    aux: bool | None = None,
    pool: str = "pad1",
    batch_norm: bool = False,
) -> NIN:
    """Network in Network for "cifar10", "cifar100", "svhn", "mnist" or "digits".  (N, H, W, C) -> logits (N,
    K)

    `variant` is another name for `dataset`. ValueError for an unknown data set or pool, and for aux=True:
    there are no auxiliary classifiers.
    """
    dataset = variant or dataset
    if not isinstance(dataset, str) or dataset not in _TABLES:
        raise ValueError(f"nin: dataset is {dataset!r}; the networks are for {', '.join(_TABLES)}")
    if pool not in ("pad1", "ceil"):
        raise ValueError(f"nin: pool is {pool!r}; it may be 'pad1' or 'ceil'")
    if aux:
        raise ValueError("nin: aux=True, but this network has no auxiliary classifiers")
    (h, w, c), kernel, widths, preprocess = _TABLES[dataset]
    channels = c if in_channels is None else in_channels
    net = NIN(
        (h, w, channels),
        kernel,
        (*widths[:-1], widths[-1] if num_classes is None else num_classes),
        pool=pool,
        batch_norm=batch_norm,
    )
    # mean and std are of images with c channels
    net.preprocess = {key: [*value] for key, value in preprocess.items() if channels == c or key == "resize"}
    return net
