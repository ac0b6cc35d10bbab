"""Network in Network, AlexNet, VGG, GoogLeNet and BN-Inception."""

from collections import OrderedDict

import torch.nn as nn
import torch.nn.functional as F

from torch_nets.blocks import GAP, Builder, Net, SamePad, head

# data set: (channels, [(filters, kernel, padding), ...] of each mlpconv block)
NIN_CFG = {
    "cifar10": (
        3,
        [
            [(192, 5, 2), (160, 1, 0), (96, 1, 0)],
            [(192, 5, 2), (192, 1, 0), (192, 1, 0)],
            [(192, 3, 1), (192, 1, 0), (10, 1, 0)],
        ],
    ),
    "cifar100": (
        3,
        [
            [(192, 5, 2), (160, 1, 0), (96, 1, 0)],
            [(192, 5, 2), (192, 1, 0), (192, 1, 0)],
            [(192, 3, 1), (192, 1, 0), (100, 1, 0)],
        ],
    ),
    "svhn": (
        3,
        [
            [(128, 5, 2), (96, 1, 0), (64, 1, 0)],
            [(320, 5, 2), (256, 1, 0), (128, 1, 0)],
            [(384, 5, 2), (256, 1, 0), (10, 1, 0)],
        ],
    ),
    "mnist": (
        1,
        [
            [(96, 5, 2), (64, 1, 0), (48, 1, 0)],
            [(128, 5, 2), (96, 1, 0), (48, 1, 0)],
            [(128, 5, 2), (96, 1, 0), (10, 1, 0)],
        ],
    ),
}


def nin(variant="cifar10", pool="ceil", drop=0.5):
    """pool: "ceil", windows start at 0 and overhang at the end (the authors'); "pad1", they start at -1."""
    cin, blocks = NIN_CFG[variant]
    B, st, c = Builder(norm=None), [], cin
    for i, blk in enumerate(blocks, 1):
        for j, (o, k, p) in enumerate(blk):
            st.append((f"conv{i}" if j == 0 else f"cccp{i}_{j}", B.conv(c, o, k, 1, p)))
            c = o
        if i < 3:
            window = {"ceil_mode": True} if pool == "ceil" else {"padding": 1}
            st.append((f"pool{i}", nn.MaxPool2d(3, 2, **window)))
            st.append((f"drop{i}", nn.Dropout(drop)))
    st.append(("gap", GAP()))
    return Net(st)


class LRN(nn.Module):
    """x / (k + a * sum of x^2 over a window of n channels)^beta; a = alpha/n (Caffe, torch) or alpha."""

    def __init__(self, n=5, alpha=1e-4, beta=0.75, k=1.0, divide=True):
        super().__init__()
        self.n, self.a, self.beta, self.k = n, (alpha / n if divide else alpha), beta, k

    def forward(self, x):
        window, pad = (self.n, 1, 1), (self.n // 2, 0, 0)
        s = F.avg_pool3d((x * x).unsqueeze(1), window, 1, pad, count_include_pad=True)
        return x / (self.k + self.a * self.n * s.squeeze(1)) ** self.beta


def fully_connected(d, classes, drop, drop_first=False):
    """fc6, fc7 and fc8, each of the first two with ReLU and, behind or in front, dropout."""

    def layer(d):
        dense, dropout = [nn.Linear(d, 4096), nn.ReLU()], [nn.Dropout(drop)]
        return nn.Sequential(*(dropout + dense if drop_first else dense + dropout))

    return [
        ("flatten", nn.Flatten()),
        ("fc6", layer(d)),
        ("fc7", layer(4096)),
        ("fc8", nn.Linear(4096, classes)),
    ]


def alexnet(variant="paper", classes=1000, drop=0.5):
    """one_weird_trick is torchvision's, with dropout in front of fc6 and fc7 (the paper's stands behind)."""
    B = Builder(norm=None)
    if variant == "one_weird_trick":
        return Net(
            [
                ("conv1", B.conv(3, 64, 11, 4, 2)),
                ("pool1", B.maxpool()),
                ("conv2", B.conv(64, 192, 5, 1, 2)),
                ("pool2", B.maxpool()),
                ("conv3", B.conv(192, 384, 3, 1, 1)),
                ("conv4", B.conv(384, 256, 3, 1, 1)),
                ("conv5", B.conv(256, 256, 3, 1, 1)),
                ("pool5", B.maxpool()),
                *fully_connected(9216, classes, drop, drop_first=True),
            ]
        )
    if variant not in ("paper", "caffe", "caffenet"):
        raise ValueError(variant)

    def norm_pool(i):
        lrn = LRN(k=2.0, divide=False) if variant == "paper" else LRN(k=1.0)
        both = [(f"norm{i}", lrn), (f"pool{i}", B.maxpool())]
        return both[::-1] if variant == "caffenet" else both

    return Net(
        [
            ("conv1", B.conv(3, 96, 11, 4, 0)),
            *norm_pool(1),
            ("conv2", B.conv(96, 256, 5, 1, 2, groups=2)),
            *norm_pool(2),
            ("conv3", B.conv(256, 384, 3, 1, 1)),
            ("conv4", B.conv(384, 384, 3, 1, 1, groups=2)),
            ("conv5", B.conv(384, 256, 3, 1, 1, groups=2)),
            ("pool5", B.maxpool()),
            *fully_connected(9216, classes, drop),
        ]
    )


VGG_CFG = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def vgg(depth=16, bn=False, classes=1000, drop=0.5):
    """bn: behind every convolution, which keeps its bias."""
    B = Builder(norm="bn" if bn else None, eps=1e-5, bias=True)
    st, c = [], 3
    for i, n in enumerate(VGG_CFG[depth], 1):
        o = min(64 << (i - 1), 512)
        for j in range(1, n + 1):
            st.append((f"conv{i}_{j}", B.conv(c, o, 3, 1, 1)))
            c = o
        st.append((f"pool{i}", nn.MaxPool2d(2, 2)))
    return Net(st + fully_connected(512 * 49, classes, drop))


GOOGLENET = OrderedDict(  # 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection
    [
        ("3a", (64, 96, 128, 16, 32, 32)),
        ("3b", (128, 128, 192, 32, 96, 64)),
        ("pool3", None),
        ("4a", (192, 96, 208, 16, 48, 64)),
        ("4b", (160, 112, 224, 24, 64, 64)),
        ("4c", (128, 128, 256, 24, 64, 64)),
        ("4d", (112, 144, 288, 32, 64, 64)),
        ("4e", (256, 160, 320, 32, 128, 128)),
        ("pool4", None),
        ("5a", (256, 160, 320, 32, 128, 128)),
        ("5b", (384, 192, 384, 48, 128, 128)),
    ]
)


def googlenet(variant="paper", classes=1000, aux=True):
    """paper: biases, LRN, 5x5. torchvision: batch norm and 3x3. tf: the same, SAME padding, no heads."""
    bn = variant != "paper"
    B = Builder(norm="bn" if bn else None, eps=1e-3, pad="tf" if variant == "tf" else "sym")
    k5, pool4 = (3, 2) if bn else (5, 3)
    st = [("conv1", B.conv(3, 64, 7, 2, "p")), ("pool1", B.maxpool(ceil=True))]
    st += [] if bn else [("norm1", LRN())]
    st += [("conv2r", B.conv(64, 64, 1)), ("conv2", B.conv(64, 192, 3, 1, 1))]
    st += [] if bn else [("norm2", LRN())]
    st += [("pool2", B.maxpool(ceil=True))]
    c = 192
    for name, v in GOOGLENET.items():
        if v is None:
            st.append((name, B.maxpool(k=3 if name == "pool3" else pool4, ceil=True)))
            continue
        specs = [f"{v[0]}:1", f"{v[1]}:1 {v[2]}:3p", f"{v[3]}:1 {v[4]}:{k5}p", f"max {v[5]}:1"]
        b, c = B.block(c, specs)
        st.append((f"inc{name}", b))
    st.append(("head", head(1024, classes, 0.2 if bn else 0.4)))
    heads = {}
    if aux and variant != "tf":
        for key, at, c in (("aux1", "inc4a", 512), ("aux2", "inc4d", 528)):
            pool = nn.AdaptiveAvgPool2d(4) if bn else nn.AvgPool2d(5, 3)
            heads[key] = (at, googlenet_aux(B, pool, c, classes))
    return Net(st, heads, 0.3)


def googlenet_aux(B, pool, c, classes):
    """The paper's auxiliary head."""
    return nn.Sequential(
        OrderedDict(
            pool=pool,
            conv=B.conv(c, 128, 1),
            flat=nn.Flatten(),
            fc1=nn.Linear(2048, 1024),
            relu=nn.ReLU(),
            drop=nn.Dropout(0.7),
            fc2=nn.Linear(1024, classes),
        )
    )


BN_INCEPTION = OrderedDict(  # 1x1, 3x3 reduce, 3x3, double reduce, double 3x3, (pool, projection)
    [
        ("3a", (64, 64, 64, 64, 96, ("avg", 32))),
        ("3b", (64, 64, 96, 64, 96, ("avg", 64))),
        ("3c", (0, 128, 160, 64, 96, ("max", None))),  # without 1x1 and projection: stride 2
        ("4a", (224, 64, 96, 96, 128, ("avg", 128))),
        ("4b", (192, 96, 128, 96, 128, ("avg", 128))),
        ("4c", (160, 128, 160, 128, 160, ("avg", 128))),
        ("4d", (96, 128, 192, 160, 192, ("avg", 128))),
        ("4e", (0, 128, 192, 192, 256, ("max", None))),
        ("5a", (352, 192, 320, 160, 224, ("avg", 128))),
        ("5b", (352, 192, 320, 192, 224, ("max", 128))),
    ]
)


class Separable7(nn.Module):
    """Depthwise 7x7 of stride 2 with 8 filters a channel, no norm, no activation; then 1x1 to 64.

    paper: batch norm and ReLU after the 1x1. tf: TF-slim's arg_scope covers conv2d only, so its separable
    layer has a bias and a ReLU but no norm (its count of variables, 10,173,112, confirms it); SAME padding.
    """

    def __init__(self, B, m=8, cout=64):
        super().__init__()
        tf = B.pad == "tf"
        self.same = SamePad((7, 7), 2) if tf else None
        self.dw = nn.Conv2d(3, 3 * m, 7, 2, 0 if tf else 3, groups=3, bias=False)
        self.pw = (Builder(norm=None) if tf else B).conv(3 * m, cout, 1)

    def forward(self, x):
        return self.pw(self.dw(self.same(x) if self.same else x))


def bn_inception(variant="caffe", classes=1000, drop=0.2):
    """caffe: projections of 128 in 4c and 4d, biases, eps 1e-5, a plain first layer. tf: projections of 96,
    eps 1e-3, separable first layer, SAME padding. paper: as tf with symmetric padding."""
    caffe, tf = variant == "caffe", variant == "tf"
    B = Builder(eps=1e-5 if caffe else 1e-3, bias=caffe, incl=caffe, pad="tf" if tf else "sym")
    st = [
        ("conv1", B.conv(3, 64, 7, 2, "p") if caffe else Separable7(B)),
        ("pool1", B.maxpool(ceil=True)),
        ("conv2r", B.conv(64, 64, 1)),
        ("conv2", B.conv(64, 192, 3, 1, 1)),
        ("pool2", B.maxpool(ceil=True)),
    ]
    c = 192
    for name, (a, r3, o3, rd, od, (pk, proj)) in BN_INCEPTION.items():
        s = "s2" if proj is None else ""
        if not caffe and name in ("4c", "4d"):
            proj = 96
        specs = [f"{a}:1"] if a else []
        specs += [f"{r3}:1 {o3}:3{s}p", f"{rd}:1 {od}:3p {od}:3{s}p", f"{pk} {proj}:1" if proj else "maxs2c"]
        b, c = B.block(c, specs)
        st.append((f"inc{name}", b))
    st.append(("head", head(c, classes, drop)))
    return Net(st)
