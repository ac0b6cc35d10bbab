"""The networks of the zoo once more, in PyTorch, written from the papers' tables and from no other code.

Those that timm 1.0.31 or torchvision 0.28 have give bit for bit their results with the same weights.
"""

from torch_nets.early import alexnet, bn_inception, googlenet, nin, vgg
from torch_nets.inceptions import (
    inception_resnet_v1,
    inception_resnet_v2,
    inception_v2,
    inception_v3,
    inception_v4,
)
from torch_nets.residual import cifar_resnet, preact_cifar, preact_resnet, resnet

__all__ = [
    "nin",
    "alexnet",
    "vgg",
    "googlenet",
    "bn_inception",
    "inception_v2",
    "inception_v3",
    "inception_v4",
    "inception_resnet_v1",
    "inception_resnet_v2",
    "resnet",
    "cifar_resnet",
    "preact_resnet",
    "preact_cifar",
]
