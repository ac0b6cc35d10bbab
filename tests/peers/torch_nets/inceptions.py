"""Inception-v2, -v3, -v4 and the Inception-ResNets."""

from torch_nets.blocks import Builder, Net, aux_v3, head


def _inc_a(pool, five):
    mid = "48:1 64:5p" if five else "48:1 64:3p"
    return ["64:1", mid, "64:1 96:3p 96:3p", f"avg {pool}:1"]


def _inc_b(c):
    long = f"{c}:1 {c}:7x1p {c}:1x7p {c}:7x1p 192:1x7p"
    return ["192:1", f"{c}:1 {c}:1x7p 192:7x1p", long, "avg 192:1"]


def _inc_c(pool):
    fork = "{384:1x3p|384:3x1p}"
    return ["320:1", f"384:1 {fork}", f"448:1 384:3p {fork}", f"{pool} 192:1"]


RED_A = ["384:3s2", "64:1 96:3p 96:3s2", "maxs2"]
RED_B = ["192:1 320:3s2", "192:1 192:1x7p 192:7x1p 192:3s2", "maxs2"]


def inception_v3(variant="tf", classes=1000, aux=True, drop=None):
    """tf: average pools leave padding out. torchvision: they count it. fid: tf, but the last pool is max."""
    B = Builder(incl=variant == "torchvision")
    if drop is None:
        drop = 0.5 if variant == "torchvision" else 0.2
    st = [
        ("conv1a", B.conv(3, 32, 3, 2)),
        ("conv2a", B.conv(32, 32, 3)),
        ("conv2b", B.conv(32, 64, 3, 1, 1)),
        ("pool1", B.maxpool()),
        ("conv3b", B.conv(64, 80, 1)),
        ("conv4a", B.conv(80, 192, 3)),
        ("pool2", B.maxpool()),
    ]
    c = 192
    seq = [
        ("5b", _inc_a(32, True)),
        ("5c", _inc_a(64, True)),
        ("5d", _inc_a(64, True)),
        ("6a", RED_A),
        ("6b", _inc_b(128)),
        ("6c", _inc_b(160)),
        ("6d", _inc_b(160)),
        ("6e", _inc_b(192)),
        ("7a", RED_B),
        ("7b", _inc_c("avg")),
        ("7c", _inc_c("max" if variant == "fid" else "avg")),
    ]
    for name, specs in seq:
        b, c = B.block(c, specs)
        st.append((f"mixed{name}", b))
    st.append(("head", head(c, classes, drop)))
    return Net(st, {"aux": ("mixed6e", aux_v3(B, 768, classes))} if aux else None, 0.4)


def inception_v2(variant="table1", classes=1000, aux=True, drop=0.2, c7=(128,) * 5):
    """Table 1 of arXiv:1512.00567, which prints no widths inside the modules: v3's, with figure 5's 3x3 for
    5x5; c7 = inner width of each 17x17 module (five of 128 stay below the abstract's 25 M parameters)."""
    B = Builder()
    st = [
        ("conv1", B.conv(3, 32, 3, 2)),
        ("conv2", B.conv(32, 32, 3)),
        ("conv3", B.conv(32, 64, 3, 1, 1)),
        ("pool1", B.maxpool()),
        ("conv4", B.conv(64, 80, 3)),
        ("conv5", B.conv(80, 192, 3, 2)),
        ("conv6", B.conv(192, 288, 3, 1, 1)),
    ]
    c = 288
    seq = [(f"a{i}", _inc_a(64, False)) for i in range(1, 4)] + [("reda", RED_A)]
    seq += [(f"b{i}", _inc_b(w)) for i, w in enumerate(c7, 1)] + [("redb", RED_B)]
    seq += [("c1", _inc_c("avg")), ("c2", _inc_c("avg"))]
    for name, specs in seq:
        b, c = B.block(c, specs)
        st.append((name, b))
    st.append(("head", head(c, classes, drop)))
    return Net(st, {"aux": (f"b{len(c7)}", aux_v3(B, 768, classes))} if aux else None, 0.4)


V4_A = ["96:1", "64:1 96:3p", "64:1 96:3p 96:3p", "avg 96:1"]
V4_B = {
    "tf": ["384:1", "192:1 224:1x7p 256:7x1p", "192:1 192:7x1p 224:1x7p 224:7x1p 256:1x7p", "avg 128:1"],
    "paper": ["384:1", "192:1 224:1x7p 256:7x1p", "192:1 192:1x7p 224:7x1p 224:1x7p 256:7x1p", "avg 128:1"],
}
V4_C = {
    "tf": [
        "256:1",
        "384:1 {256:1x3p|256:3x1p}",
        "384:1 448:3x1p 512:1x3p {256:1x3p|256:3x1p}",
        "avg 256:1",
    ],
    "paper": [
        "256:1",
        "384:1 {256:1x3p|256:3x1p}",
        "384:1 448:1x3p 512:3x1p {256:3x1p|256:1x3p}",
        "avg 256:1",
    ],
}
V4_RB = ["192:1 192:3s2", "256:1 256:1x7p 320:7x1p 320:3s2", "maxs2"]
STEM4 = {
    "tf": ["64:1 96:3", "64:1 64:1x7p 64:7x1p 96:3"],
    "paper": ["64:1 96:3", "64:1 64:7x1p 64:1x7p 96:3"],
}


def _reduction_a(k, l, m, n):  # noqa: E741 (the paper's letters)
    return [f"{n}:3s2", f"{k}:1 {l}:3p {m}:3s2", "maxs2"]


def _stem_v4(B, variant):
    st = [
        ("conv1a", B.conv(3, 32, 3, 2)),
        ("conv2a", B.conv(32, 32, 3)),
        ("conv2b", B.conv(32, 64, 3, 1, 1)),
    ]
    c = 64
    for name, specs in (
        ("stem3a", ["maxs2", "96:3s2"]),
        ("stem4a", STEM4[variant]),
        ("stem5a", ["192:3s2", "maxs2"]),
    ):
        b, c = B.block(c, specs)
        st.append((name, b))
    return st, c


def inception_v4(variant="tf", classes=1000, aux=False, drop=0.2):
    """tf: the order of 1x7 and 7x1 in TF-slim and timm. paper: that of figures 3, 5 and 6."""
    B = Builder()
    st, c = _stem_v4(B, variant)
    seq = [(f"a{i}", V4_A) for i in range(1, 5)] + [("reda", _reduction_a(192, 224, 256, 384))]
    seq += [(f"b{i}", V4_B[variant]) for i in range(1, 8)] + [("redb", V4_RB)]
    seq += [(f"c{i}", V4_C[variant]) for i in range(1, 4)]
    for name, specs in seq:
        b, c = B.block(c, specs)
        st.append((name, b))
    st.append(("head", head(c, classes, drop)))
    return Net(st, {"aux": ("b7", aux_v3(B, 1024, classes))} if aux else None, 0.4)


IR1 = {
    "A": ["32:1", "32:1 32:3p", "32:1 32:3p 32:3p"],
    "B": ["128:1", "128:1 128:1x7p 128:7x1p"],
    "C": ["192:1", "192:1 192:1x3p 192:3x1p"],
    "RA": (192, 192, 256, 384),
    "RB": ["256:1 384:3s2", "256:1 256:3s2", "256:1 256:3p 256:3s2", "maxs2"],
}
IR2 = {
    "A": ["32:1", "32:1 32:3p", "32:1 48:3p 64:3p"],
    "B": ["192:1", "128:1 160:1x7p 192:7x1p"],
    "C": ["192:1", "192:1 224:1x3p 256:3x1p"],
    "RA": (256, 256, 384, 384),
    "RB": ["256:1 384:3s2", "256:1 288:3s2", "256:1 288:3p 320:3s2", "maxs2"],
}


def _inception_resnet(B, st, c, spec, n, scales, last_linear):
    """Append the residual part to the stages `st`; returns its channels."""
    for i in range(1, n[0] + 1):
        st.append((f"a{i}", B.res(c, spec["A"], scales[0])))
    b, c = B.block(c, _reduction_a(*spec["RA"]))
    st.append(("reda", b))
    for i in range(1, n[1] + 1):
        st.append((f"b{i}", B.res(c, spec["B"], scales[1])))
    b, c = B.block(c, spec["RB"])
    st.append(("redb", b))
    for i in range(1, n[2] + 1):
        st.append((f"c{i}", B.res(c, spec["C"], scales[2])))
    if last_linear:  # one more C block, scale 1, no activation
        st.append((f"c{n[2] + 1}", B.res(c, spec["C"], 1.0, act=False)))
    return c


def _stem_ir(B):
    return [
        ("conv1a", B.conv(3, 32, 3, 2)),
        ("conv2a", B.conv(32, 32, 3)),
        ("conv2b", B.conv(32, 64, 3, 1, 1)),
        ("pool3a", B.maxpool()),
        ("conv3b", B.conv(64, 80, 1)),
        ("conv4a", B.conv(80, 192, 3)),
    ]


def inception_resnet_v1(variant="paper", classes=1000, drop=0.2, scales=(0.17, 0.10, 0.20)):
    """paper: 5, 10, 5 blocks. facenet: and a final linear C block with scale 1."""
    B = Builder()
    st = [*_stem_ir(B), ("conv4b", B.conv(192, 256, 3, 2))]
    c = _inception_resnet(B, st, 256, IR1, (5, 10, 5), scales, variant == "facenet")
    st.append(("head", head(c, classes, drop)))
    return Net(st)


def inception_resnet_v2(variant="tf", classes=1000, aux=False, drop=0.2, scales=(0.17, 0.10, 0.20)):
    """paper: figure 3's stem (384 channels), 5, 10, 5 blocks, 384/1152/2144 channels. tf: v3's stem and
    mixed_5b (320 channels), 10, 20, 9 blocks and a linear one, then a 1x1 convolution to 1536."""
    B = Builder()
    if variant == "paper":
        st, c = _stem_v4(B, "paper")
        c = _inception_resnet(B, st, c, IR2, (5, 10, 5), scales, False)
        last_b, aux_c = "b10", 1152
    else:
        st = [*_stem_ir(B), ("pool5a", B.maxpool())]
        b, c = B.block(192, ["96:1", "48:1 64:5p", "64:1 96:3p 96:3p", "avg 64:1"])
        st.append(("mixed5b", b))
        c = _inception_resnet(B, st, c, IR2, (10, 20, 9), scales, True)
        st.append(("conv7b", B.conv(c, 1536, 1)))
        c, last_b, aux_c = 1536, "b20", 1088
    st.append(("head", head(c, classes, drop)))
    return Net(st, {"aux": (last_b, aux_v3(B, aux_c, classes))} if aux else None, 0.4)
