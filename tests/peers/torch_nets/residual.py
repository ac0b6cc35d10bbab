"""Residual, plain and pre-activation residual networks, for ImageNet and for CIFAR."""

import torch.nn as nn
import torch.nn.functional as F

from torch_nets.blocks import Builder, Net, head


class ShortcutA(nn.Module):
    """Every s-th pixel, then zero channels.  where: "end" (zeros after) or "both" (half of them before)."""

    def __init__(self, cin, cout, s, where="end"):
        super().__init__()
        d = cout - cin
        self.s, self.lo = s, (d // 2 if where == "both" else 0)
        self.hi = d - self.lo

    def forward(self, x):
        return F.pad(x[:, :, :: self.s, :: self.s], (0, 0, 0, 0, self.lo, self.hi))


def _shapes(kind, width, s, stride_on):
    """(filters, kernel, stride) of each convolution of a unit, and its channels."""
    if kind == "basic":
        return [(width, 3, s), (width, 3, 1)], width
    first, second = (s, 1) if stride_on == 1 else (1, s)
    return [(width, 1, first), (width, 3, second), (4 * width, 1, 1)], 4 * width


class ResUnit(nn.Module):
    """kind: basic or bottleneck.  stride_on: a bottleneck's stride is on 1 the first 1x1, 2 the 3x3."""

    def __init__(
        self, cin, width, s, kind, stride_on=1, option="B", shortcut=True, pad_where="end", eps=1e-5
    ):
        super().__init__()
        shapes, cout = _shapes(kind, width, s, stride_on)
        B = Builder(eps=eps)
        mods, c = [], cin
        for i, (o, k, st) in enumerate(shapes):
            mods.append(B.conv(c, o, k, st, k // 2, act=i + 1 < len(shapes)))
            c = o
        self.body = nn.Sequential(*mods)
        self.short = None
        self.has_shortcut = shortcut
        if shortcut and (option == "C" or s != 1 or cin != cout):
            projection = option != "A"
            self.short = (
                B.conv(cin, cout, 1, s, 0, act=False) if projection else ShortcutA(cin, cout, s, pad_where)
            )
        self.cout = cout

    def forward(self, x):
        y = self.body(x)
        if self.has_shortcut:
            y = y + (x if self.short is None else self.short(x))
        return F.relu(y)


RESNET_CFG = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
    200: ("bottleneck", (3, 24, 36, 3)),
}


def resnet(depth=50, variant="v1.5", option="B", plain=False, classes=1000, pool="pad1"):
    """variant: v1 (stride on the first 1x1, paper and Caffe) or v1.5 (on the 3x3, torchvision and timm)."""
    kind, counts = RESNET_CFG[depth]
    B = Builder(eps=1e-5)
    pool1 = nn.MaxPool2d(3, 2, 1) if pool == "pad1" else nn.MaxPool2d(3, 2, ceil_mode=True)
    st = [("conv1", B.conv(3, 64, 7, 2, 3)), ("pool1", pool1)]
    c = 64
    for i, n in enumerate(counts):
        units = []
        for j in range(n):
            stride_on = 1 if variant == "v1" else 2
            u = ResUnit(c, 64 << i, 2 if i and j == 0 else 1, kind, stride_on, option, not plain)
            units.append(u)
            c = u.cout
        st.append((f"conv{i + 2}_x", nn.Sequential(*units)))
    st.append(("head", head(c, classes)))
    return Net(st)


def cifar_resnet(depth=20, option="A", plain=False, classes=10, pad_where="end"):
    """6n + 2 layers; option and pad_where as in ResUnit."""
    n = (depth - 2) // 6
    st, c = [("conv1", Builder(eps=1e-5).conv(3, 16, 3, 1, 1))], 16
    for i in range(3):
        units = []
        for j in range(n):
            u = ResUnit(c, 16 << i, 2 if i and j == 0 else 1, "basic", 1, option, not plain, pad_where)
            units.append(u)
            c = u.cout
        st.append((f"stage{i + 1}", nn.Sequential(*units)))
    st.append(("head", head(c, classes)))
    return Net(st)


class BNReLU(nn.Sequential):
    """Batch norm and ReLU."""

    def __init__(self, c, eps=1e-5):
        super().__init__(nn.BatchNorm2d(c, eps=eps), nn.ReLU())


class PreActUnit(nn.Module):
    """A chain of BN-ReLU-convolution added to the shortcut; no activation after the sum.

    pre: "own"  the chain starts with its own BN-ReLU and the shortcut takes the raw input
         "both" one BN-ReLU before the paths part (units that change shape, and a CIFAR net's first unit)
         "none" the input is activated already (the first unit after conv1-BN-ReLU[-pool])
    """

    def __init__(self, cin, width, s, kind, stride_on=1, option="B", pre="own"):
        super().__init__()
        shapes, cout = _shapes(kind, width, s, stride_on)
        self.pre = pre
        self.act0 = BNReLU(cin) if pre != "none" else None
        mods, c = [], cin
        for i, (o, k, st) in enumerate(shapes):
            if i:
                mods.append(BNReLU(c))
            mods.append(nn.Conv2d(c, o, k, st, k // 2, bias=False))
            c = o
        self.body = nn.Sequential(*mods)
        self.short = None
        if s != 1 or cin != cout:
            projection = option != "A"
            self.short = nn.Conv2d(cin, cout, 1, s, bias=False) if projection else ShortcutA(cin, cout, s)
        self.cout = cout

    def forward(self, x):
        a = self.act0(x) if self.act0 is not None else x
        sc = x if self.pre == "own" else a
        sc = sc if self.short is None else self.short(sc)
        return self.body(a) + sc


def preact_resnet(depth=50, variant="v1.5", option="B", classes=1000, stem_act=False):
    """stem_act False (timm, TF-slim): conv1, pool, units that each start with BN-ReLU. True (paper's text,
    fb.resnet.torch): conv1, BN, ReLU, pool, and the first unit has no BN-ReLU of its own."""
    kind, counts = RESNET_CFG[depth]
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False)]
    stem += ([BNReLU(64)] if stem_act else []) + [nn.MaxPool2d(3, 2, 1)]
    st, c = [("conv1", nn.Sequential(*stem))], 64
    for i, n in enumerate(counts):
        units = []
        for j in range(n):
            s = 2 if i and j == 0 else 1
            changes = s != 1 or c != (64 << i) * (1 if kind == "basic" else 4)
            pre = "none" if (stem_act and i == 0 and j == 0) else ("both" if changes else "own")
            u = PreActUnit(c, 64 << i, s, kind, 1 if variant == "v1" else 2, option, pre)
            units.append(u)
            c = u.cout
        st.append((f"conv{i + 2}_x", nn.Sequential(*units)))
    st += [("post", BNReLU(c)), ("head", head(c, classes))]
    return Net(st)


def preact_cifar(depth=110, kind="basic", option=None, classes=10):
    """basic: 6n + 2 layers, option A; bottleneck: 9n + 2 (164, 1001), projections, stride on the first."""
    n = (depth - 2) // (6 if kind == "basic" else 9)
    option = option or ("A" if kind == "basic" else "B")
    st, c = [("conv1", nn.Conv2d(3, 16, 3, 1, 1, bias=False))], 16
    for i in range(3):
        units = []
        for j in range(n):
            s = 2 if i and j == 0 else 1
            changes = s != 1 or c != (16 << i) * (1 if kind == "basic" else 4)
            pre = "both" if changes or (i == 0 and j == 0) else "own"
            u = PreActUnit(c, 16 << i, s, kind, 1, option, pre)
            units.append(u)
            c = u.cout
        st.append((f"stage{i + 1}", nn.Sequential(*units)))
    st += [("post", BNReLU(c)), ("head", head(c, classes))]
    return Net(st)
