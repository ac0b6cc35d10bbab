"""A network and a data set small enough to train in a blink, yet with every kind of state: dropout, batch
norm, momentum."""

import pytest

import minidl as md
from minidl import nn
from minidl.data import Dataset, synthetic


class Tiny(md.Model):
    """Convolution, batch norm, dropout, linear."""

    def __init__(self, num_classes: int = 3) -> None:
        self.input_shape, self.num_classes = (8, 8, 3), num_classes
        self.conv = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(6, activation="relu")
        self.pool = nn.MaxPool2d(2)
        self.drop = nn.Dropout(0.2)
        self.gap = nn.GlobalAvgPool()
        self.out = nn.Linear(6, num_classes)

    def forward(self, x: md.Tensor) -> md.Tensor:
        return self.out(self.gap(self.drop(self.pool(self.bn(self.conv(x))))))


@pytest.fixture
def tiny() -> Tiny:
    return Tiny()


@pytest.fixture
def data() -> Dataset:
    return synthetic(60, 20, shape=(8, 8, 3), num_classes=3)
