"""The classic convolutional networks, one file per paper, built on minidl's public names."""

from minidl_models.alexnet import alexnet
from minidl_models.bn_inception import bn_inception
from minidl_models.googlenet import googlenet
from minidl_models.inception_v2_v3 import inception_v2, inception_v3
from minidl_models.inception_v4_resnet import inception_resnet_v1, inception_resnet_v2, inception_v4
from minidl_models.nin import nin
from minidl_models.preact_resnet import (
    preact_resnet18,
    preact_resnet20,
    preact_resnet32,
    preact_resnet34,
    preact_resnet44,
    preact_resnet50,
    preact_resnet56,
    preact_resnet101,
    preact_resnet110,
    preact_resnet152,
    preact_resnet164,
    preact_resnet200,
    preact_resnet1001,
)
from minidl_models.registry import create, entry, names
from minidl_models.resnet import plain18, plain34, resnet18, resnet34, resnet50, resnet101, resnet152
from minidl_models.resnet_cifar import (
    plain20,
    plain32,
    plain44,
    plain56,
    plain110,
    resnet20,
    resnet32,
    resnet44,
    resnet56,
    resnet110,
)
from minidl_models.sources import fetch_weights, pretrained_sources
from minidl_models.vgg import vgg11, vgg13, vgg16, vgg19

__all__ = [
    "create",
    "entry",
    "names",
    "pretrained_sources",
    "fetch_weights",
    "nin",
    "alexnet",
    "vgg11",
    "vgg13",
    "vgg16",
    "vgg19",
    "googlenet",
    "bn_inception",
    "inception_v2",
    "inception_v3",
    "inception_v4",
    "inception_resnet_v1",
    "inception_resnet_v2",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "plain18",
    "plain34",
    "resnet20",
    "resnet32",
    "resnet44",
    "resnet56",
    "resnet110",
    "plain20",
    "plain32",
    "plain44",
    "plain56",
    "plain110",
    "preact_resnet18",
    "preact_resnet34",
    "preact_resnet50",
    "preact_resnet101",
    "preact_resnet152",
    "preact_resnet200",
    "preact_resnet20",
    "preact_resnet32",
    "preact_resnet44",
    "preact_resnet56",
    "preact_resnet110",
    "preact_resnet164",
    "preact_resnet1001",
]
