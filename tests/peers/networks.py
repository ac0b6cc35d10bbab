"""Which network of the zoo each row of reference_counts.json describes, and which PyTorch twin it has.

A network is a pair (name, label of a variant) of the zoo's register.  Needs neither PyTorch nor minidl.
"""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent

Network = tuple[str, str]


def reference() -> dict[str, Any]:
    """reference_counts.json: "models" (a row by name), "googlenet_table1", "_about"."""
    return json.loads((FOLDER / "reference_counts.json").read_text(encoding="utf-8"))


def rows() -> dict[str, Network]:
    """Row of reference_counts.json -> the network it describes."""
    table = {f"nin/{data}": ("nin", data) for data in ("cifar10", "cifar100", "svhn", "mnist")}
    table |= {f"alexnet/{v}": ("alexnet", v) for v in ("paper", "caffe", "caffenet", "one_weird_trick")}
    table["alexnet/one_weird_trick(own)"] = ("alexnet", "one_weird_trick")
    for depth in (11, 13, 16, 19):
        name = f"vgg{depth}"
        table |= dict.fromkeys([f"{name}/paper", f"{name}/torchvision"], (name, "plain"))
        table |= dict.fromkeys([f"{name}/bn", f"{name}_bn/torchvision"], (name, "batch_norm=true"))
    table |= {f"googlenet/{v}": ("googlenet", v) for v in ("paper", "torchvision", "tf")}
    table["googlenet/torchvision(own)"] = ("googlenet", "torchvision")
    table |= {f"bn_inception/{v}": ("bn_inception", v) for v in ("paper", "caffe", "tf")}
    table |= {
        "inception_v2/table1": ("inception_v2", "table1"),
        "inception_v2/table1_wide": ("inception_v2", "c7=[128,160,160,160,192]"),
        "inception_v2/table1_4x17": ("inception_v2", "c7=[128,160,160,192]"),
        "inception_v3/timm": ("inception_v3", "torchvision"),
        "inception_v3/torchvision": ("inception_v3", "torchvision"),
    }
    table |= {f"inception_v3/{v}(own)": ("inception_v3", v) for v in ("tf", "torchvision", "fid")}
    for name in ("inception_v4", "inception_resnet_v2"):
        table |= {f"{name}/timm": (name, "tf"), f"{name}/tf": (name, "tf"), f"{name}/paper": (name, "paper")}
    table |= {f"inception_resnet_v1/{v}": ("inception_resnet_v1", v) for v in ("paper", "facenet")}
    return table | _residual_rows()


def _residual_rows() -> dict[str, Network]:
    table = {}
    for depth in (18, 34, 50, 101, 152):
        for name, sources in (
            (f"resnet{depth}", ("torchvision", "timm", "v1.5")),
            (f"preact_resnet{depth}", ("timm", "v1.5")),
        ):
            table |= dict.fromkeys([f"{name}/{source}" for source in sources], (name, "v1.5"))
        table[f"preact_resnet{depth}/paper"] = (f"preact_resnet{depth}", "paper")
        if depth < 50:
            table[f"plain{depth}"] = (f"plain{depth}", "paper")
            table |= {f"resnet{depth}/option{s}": (f"resnet{depth}", f"shortcut={s}") for s in "AC"}
        else:
            table[f"resnet{depth}/v1"] = (f"resnet{depth}", "v1")
    table |= {f"preact_resnet200/{v}": ("preact_resnet200", v) for v in ("v1.5", "paper")}
    for depth in (20, 32, 44, 56, 110):
        table[f"cifar_resnet{depth}/A"] = (f"resnet{depth}", "paper")
        table[f"cifar_resnet{depth}/B"] = (f"resnet{depth}", "shortcut=B")
        table[f"cifar_plain{depth}"] = (f"plain{depth}", "paper")
        table[f"cifar_preact{depth}/A"] = (f"preact_resnet{depth}", "paper")
    for depth in (164, 1001):
        table[f"cifar_preact{depth}/bottleneck"] = (f"preact_resnet{depth}", "paper")
    return table


def same_counts() -> dict[Network, Network]:
    """Networks without a row of their own -> the one that has the same layers and shapes."""
    table: dict[Network, Network] = {("nin", "digits"): ("nin", "mnist")}
    return table | {(f"resnet{d}", "pad=both"): (f"resnet{d}", "paper") for d in (20, 32, 44, 56, 110)}


def twins() -> dict[Network, str]:
    """Network -> the call in torch_nets that builds its twin, auxiliary heads included."""
    table = {
        ("nin", data): f"nin({data!r}, pool='pad1')" for data in ("cifar10", "cifar100", "svhn", "mnist")
    }
    table |= {("alexnet", v): f"alexnet({v!r})" for v in ("paper", "caffe", "caffenet", "one_weird_trick")}
    for depth in (11, 13, 16, 19):
        table[f"vgg{depth}", "plain"] = f"vgg({depth})"
        table[f"vgg{depth}", "batch_norm=true"] = f"vgg({depth}, bn=True)"
    for name, variants in (
        ("googlenet", ("paper", "torchvision", "tf")),
        ("bn_inception", ("paper", "caffe", "tf")),
        ("inception_v3", ("tf", "torchvision", "fid")),
        ("inception_resnet_v1", ("paper", "facenet")),
    ):
        table |= {(name, v): f"{name}({v!r})" for v in variants}
    for name in ("inception_v4", "inception_resnet_v2"):
        table |= {(name, v): f"{name}({v!r}, aux=True)" for v in ("tf", "paper")}
    table["inception_v2", "table1"] = "inception_v2()"
    for c7 in ("[128,160,160,160,192]", "[128,160,160,192]"):
        table["inception_v2", f"c7={c7}"] = f"inception_v2(c7={c7})"
    return table | _residual_twins()


def _residual_twins() -> dict[Network, str]:
    table = {}
    for depth in (18, 34, 50, 101, 152, 200):
        table[f"preact_resnet{depth}", "v1.5"] = f"preact_resnet({depth})"
        table[f"preact_resnet{depth}", "paper"] = f"preact_resnet({depth}, 'v1', stem_act=True)"
        if depth < 200:
            table[f"resnet{depth}", "v1.5"] = f"resnet({depth})"
        if depth < 50:
            table[f"plain{depth}", "paper"] = f"resnet({depth}, plain=True)"
            table |= {(f"resnet{depth}", f"shortcut={s}"): f"resnet({depth}, option={s!r})" for s in "AC"}
        elif depth < 200:
            table[f"resnet{depth}", "v1"] = f"resnet({depth}, 'v1')"
    for depth in (20, 32, 44, 56, 110):
        table[f"resnet{depth}", "paper"] = f"cifar_resnet({depth})"
        table[f"resnet{depth}", "shortcut=B"] = f"cifar_resnet({depth}, 'B')"
        table[f"resnet{depth}", "pad=both"] = f"cifar_resnet({depth}, pad_where='both')"
        table[f"plain{depth}", "paper"] = f"cifar_resnet({depth}, plain=True)"
        table[f"preact_resnet{depth}", "paper"] = f"preact_cifar({depth})"
    for depth in (164, 1001):
        table[f"preact_resnet{depth}", "paper"] = f"preact_cifar({depth}, 'bottleneck')"
    return table
