"""Layers: parameters and one op call each."""

from minidl.nn import init
from minidl.nn.containers import Concat, ModuleList, Sequential
from minidl.nn.layers import (
    AdaptiveAvgPool2d,
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Identity,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    ReLU,
)
from minidl.nn.module import Hook, HookHandle, Module, Parameter, PreHook, as_input, mode

__all__ = [
    "AdaptiveAvgPool2d",
    "AvgPool2d",
    "BatchNorm2d",
    "Concat",
    "Conv2d",
    "Dropout",
    "Flatten",
    "GlobalAvgPool",
    "Hook",
    "HookHandle",
    "Identity",
    "Linear",
    "LocalResponseNorm",
    "MaxPool2d",
    "Module",
    "ModuleList",
    "Parameter",
    "PreHook",
    "ReLU",
    "Sequential",
    "init",
    "as_input",
    "mode",
]
