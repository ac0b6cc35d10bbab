"""What the twins share: a network of named stages, and the branch notation of the tables.

A net runs its stages in order and collects auxiliary logits while it trains. Blocks with branches are written
in a notation of one line a branch, which is also that of minidl_models/blocks.py, but read by other code:

    "64:1"               1x1 convolution to 64 channels (with norm and ReLU as the builder says)
    "48:1 64:5p"         1x1 to 48, then 5x5 to 64 with padding 2 ("p" pads by k//2, without it nothing)
    "192:1 224:1x7p"     kernel height x width
    "192:1 192:3s2"      stride 2 without padding;  "3s2p" stride 2 with padding
    "avg 32:1"           3x3 average pool of stride 1 and padding 1, then 1x1; "max" likewise with max pool
    "maxs2" / "maxs2c"   3x3 max pool of stride 2, floor / ceil mode, no padding
    "384:1 {256:1x3p|256:3x1p}"   fork: both children read the 384 channels, their outputs are concatenated
"""

import re
from collections import OrderedDict

import torch
import torch.nn as nn
import torch.nn.functional as F


class SamePad(nn.Module):
    """TensorFlow's SAME: max((ceil(n/s) - 1)*s + k - n, 0) rows and columns, the odd one at the end."""

    def __init__(self, k, s, value=0.0):
        super().__init__()
        self.k, self.s, self.value = k, s, value

    def forward(self, x):
        pads = []
        for n, k in ((x.shape[-1], self.k[1]), (x.shape[-2], self.k[0])):
            t = max((-(-n // self.s) - 1) * self.s + k - n, 0)
            pads += [t // 2, t - t // 2]
        return F.pad(x, pads, value=self.value)


class Branches(nn.Module):
    """Modules that read the same input; their channels are concatenated."""

    def __init__(self, mods):
        super().__init__()
        self.b = nn.ModuleList(mods)

    def forward(self, x):
        return torch.cat([m(x) for m in self.b], 1)


class Residual(nn.Module):
    """relu(x + scale * conv1x1(branches(x))); the 1x1 has a bias, no norm and no activation."""

    def __init__(self, branches, cmid, cin, scale, act):
        super().__init__()
        self.body, self.up = branches, nn.Conv2d(cmid, cin, 1)
        self.scale, self.act = scale, act

    def forward(self, x):
        y = x + self.scale * self.up(self.body(x))
        return F.relu(y) if self.act else y


class Builder:
    """How one network writes its convolutions.

    norm: "bn" or None; pad: "sym" (k//2 on both sides) or "tf" (SAME); incl: average pools count padding.
    """

    def __init__(self, norm="bn", eps=1e-3, bias=None, incl=False, pad="sym", momentum=0.1):
        self.norm, self.eps, self.incl, self.pad, self.momentum = norm, eps, incl, pad, momentum
        self.bias = (norm is None) if bias is None else bias

    def conv(self, cin, cout, k=1, s=1, p=None, groups=1, act=True):
        """Convolution, norm, ReLU.  p: None no padding, "p" half the kernel, or a number."""
        k = (k, k) if isinstance(k, int) else tuple(k)
        mods = OrderedDict()
        pad = 0
        if p == "p":
            if self.pad == "tf" and s > 1:
                mods["same"] = SamePad(k, s)
            else:
                pad = (k[0] // 2, k[1] // 2)
        elif p is not None:
            pad = p
        mods["conv"] = nn.Conv2d(cin, cout, k, s, pad, groups=groups, bias=self.bias)
        if self.norm:
            mods["bn"] = nn.BatchNorm2d(cout, eps=self.eps, momentum=self.momentum)
        if act:
            mods["relu"] = nn.ReLU()
        return nn.Sequential(mods)

    def maxpool(self, k=3, s=2, ceil=False, p=0):
        """Max pool, 3x3 of stride 2."""
        return nn.MaxPool2d(k, s, p, ceil_mode=ceil)

    def path(self, spec, cin):
        """(one branch, its channels)."""
        mods, c = [], cin
        fork = None
        if "{" in spec:
            spec, rest = spec.split("{")
            fork = rest.rstrip("} ").split("|")
        for tok in spec.split():
            m = re.fullmatch(r"(\d+):(\d+)(?:x(\d+))?(?:s(\d))?(p?)", tok)
            if m is None:
                mods.append(self.pool(tok))
                continue
            o, kh, kw, s, p = m.groups()
            mods.append(self.conv(c, int(o), (int(kh), int(kw or kh)), int(s or 1), p or None))
            c = int(o)
        if fork:
            kids = [self.path(f, c) for f in fork]
            mods.append(Branches([k for k, _ in kids]))
            c = sum(o for _, o in kids)
        return (mods[0] if len(mods) == 1 else nn.Sequential(*mods)), c

    def pool(self, token):
        """The pool that a token stands for; ValueError for any other token."""
        if token == "avg":
            return nn.AvgPool2d(3, 1, 1, count_include_pad=self.incl)
        if token == "max":
            return nn.MaxPool2d(3, 1, 1)
        if token in ("maxs2", "maxs2c"):
            return nn.MaxPool2d(3, 2, ceil_mode=token == "maxs2c")
        raise ValueError(token)

    def block(self, cin, specs):
        """(branches side by side, their channels)."""
        kids = [self.path(s, cin) for s in specs]
        return Branches([k for k, _ in kids]), sum(o for _, o in kids)

    def res(self, cin, specs, scale, act=True):
        """A residual block of the Inception-ResNets."""
        b, c = self.block(cin, specs)
        return Residual(b, c, cin, scale, act)


class Net(nn.Module):
    """Stages in order; in training mode (logits, [auxiliary logits, ...]) if it has auxiliary heads."""

    def __init__(self, stages, aux=None, aux_weight=0.0):
        super().__init__()
        self.stages = nn.ModuleDict(OrderedDict(stages))
        self.aux = nn.ModuleDict(OrderedDict((k, v) for k, (at, v) in (aux or {}).items()))
        self.aux_at = {at: k for k, (at, v) in (aux or {}).items()}
        self.aux_weight = aux_weight

    def forward(self, x):
        extra = []
        for name, m in self.stages.items():
            x = m(x)
            if self.training and name in self.aux_at:
                extra.append(self.aux[self.aux_at[name]](x))
        return (x, extra) if extra else x


class GAP(nn.Module):
    """Average over height and width."""

    def forward(self, x):
        return x.mean((2, 3))


def head(c, classes, drop=0.0):
    """Global average, dropout, linear."""
    return nn.Sequential(OrderedDict(pool=GAP(), drop=nn.Dropout(drop), fc=nn.Linear(c, classes)))


def aux_v3(B, c, classes, hidden=768):
    """The auxiliary head of Inception-v3 and the networks after it."""
    return nn.Sequential(
        OrderedDict(
            pool=nn.AvgPool2d(5, 3),
            conv0=B.conv(c, 128, 1),
            conv1=B.conv(128, hidden, 5),
            gap=GAP(),
            fc=nn.Linear(hidden, classes),
        )
    )
