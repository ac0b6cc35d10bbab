"""The layer table's columns."""

import numpy as np

import minidl as md
from minidl import nn
from minidl.inspection import layer_rows


def test_rows_in_order_of_running_with_window_shape_and_costs():
    net = nn.Sequential(
        {
            "a": nn.Conv2d(4, 6, (1, 7), stride=2, padding=(0, 3), groups=2),
            "p": nn.MaxPool2d(3, 2, ceil_mode=True),
            "s": nn.Conv2d(6, 2, 3, padding="same", bias=False),
            "e": nn.AvgPool2d(2, padding=((0, 1), (1, 0))),
            "f": nn.Flatten(),
            "l": nn.Linear(2, 5),
        }
    )
    rows = layer_rows(net, (8, 8, 4))
    assert [(r.path, r.kind, r.window, r.output, r.params, r.macs) for r in rows] == [
        ("a", "Conv2d", "1x7/2/0x3 groups 2", (4, 4, 6), 90, 1344),
        ("p", "MaxPool2d", "3x3/2/0 ceil", (2, 2, 6), 0, 0),
        ("s", "Conv2d", "3x3/1/same", (2, 2, 2), 108, 432),
        ("e", "AvgPool2d", "2x2/2/(0,1)x(1,0)", (1, 1, 2), 0, 0),
        ("f", "Flatten", "", (2,), 0, 0),
        ("l", "Linear", "", (5,), 15, 10),
    ]


def test_the_statistics_of_batch_norm_are_not_touched():
    net = nn.Sequential(nn.BatchNorm2d(3))
    before = net.state_dict()
    layer_rows(net, (4, 4, 3))
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    assert net.training
    assert isinstance(net(md.tensor(np.ones((2, 2, 2, 3), np.float32))), md.Tensor)
