"""Optimisers, learning-rate schedules, gradient clipping, and the moving average of parameters.

An optimiser says what to keep per parameter and which backend update to call; that is one pass over memory.
"""

from minidl.optim.adam import Adam, AdamW
from minidl.optim.clip import clip_grad_norm, clip_grad_value
from minidl.optim.ema import EMA
from minidl.optim.optimizer import Optimizer
from minidl.optim.rmsprop import RMSprop
from minidl.optim.schedule import CosineLR, ExponentialLR, MultiStepLR, OneCycleLR, Schedule, StepLR, Warmup
from minidl.optim.sgd import SGD

__all__ = [
    "EMA",
    "SGD",
    "Adam",
    "AdamW",
    "CosineLR",
    "ExponentialLR",
    "MultiStepLR",
    "OneCycleLR",
    "Optimizer",
    "RMSprop",
    "Schedule",
    "StepLR",
    "Warmup",
    "clip_grad_norm",
    "clip_grad_value",
]
