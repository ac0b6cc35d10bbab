"""Counts the PyTorch twins:  python tests/peers/count.py [--write]

Compares every row of reference_counts.json whose source is "own" or "tf-slim" (that is, a twin) with the twin
and prints what differs; with --write, corrects these rows, and adds those that networks.py names. Rows from
timm and torchvision were counted on those libraries and stay as they are. Nothing is computed: the twins live
on PyTorch's meta device, where tensors are shapes alone.
"""

import json
import math
import re
import sys
from typing import Any

import torch
from torch import nn

import networks
import torch_nets


def counted(call: str, size: list[int]) -> dict[str, Any]:
    """The row of the twin that `call` builds, for images of (C, H, W)."""
    with torch.device("meta"):
        net = eval(call, vars(torch_nets))
        shapes: dict[nn.Module, tuple[int, ...]] = {}
        for module in net.modules():
            module.register_forward_hook(lambda module, inputs, y: shapes.update({module: _shape(y)}))
        net.train()(torch.zeros(2, *size))
    stages = dict(net.stages.items())
    main, aux = list(net.stages.modules()), list(net.aux.modules())
    norm = sum(module.num_features for module in main if isinstance(module, nn.BatchNorm2d))
    row = {
        "params": _params(net.stages),
        "params_aux": _params(net.aux),
        "macs": sum(_macs(module, shapes) for module in main),
        "macs_aux": sum(_macs(module, shapes) for module in aux),
        "conv_and_linear_layers": sum(isinstance(module, (nn.Conv2d, nn.Linear)) for module in main),
        "bn_channels": norm,
        "input": size,
        "stages": {name: list(shapes[stage]) for name, stage in stages.items()},
        "stage_params_macs": {
            name: [_params(stage), sum(_macs(module, shapes) for module in stage.modules())]
            for name, stage in stages.items()
            if _params(stage)
        },
    }
    if norm:
        row |= {"params_without_bn_gamma": row["params"] - norm, "values_in_state": row["params"] + 2 * norm}
    return row


def _shape(output: Any) -> tuple[int, ...]:
    """Of one image."""
    return tuple((output[0] if isinstance(output, tuple) else output).shape[1:])


def _params(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _macs(module: nn.Module, shapes: dict[nn.Module, tuple[int, ...]]) -> int:
    """Multiply-adds of one convolution or linear layer for one image."""
    if isinstance(module, nn.Conv2d):
        return math.prod(shapes[module][1:]) * module.weight.numel()
    return module.weight.numel() if isinstance(module, nn.Linear) else 0


def differences(reference: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Row -> the fields in which a twin differs from it, as counted on the twin."""
    twins, found = networks.twins(), {}
    for name, network in networks.rows().items():
        row = reference["models"].get(name, {"source": "own"})
        if row["source"] not in ("own", "tf-slim"):
            continue
        size = row.get("input") or reference["models"][name.partition("/")[0] + "/paper"]["input"]
        recount = counted(twins[network], size)
        wrong = {key: value for key, value in recount.items() if key not in row or row[key] != value}
        if wrong:
            found[name] = wrong
    return found


def main(write: bool) -> int:
    """Print the differences; 1 if there are any that were not written."""
    reference = networks.reference()
    found = differences(reference)
    for name, wrong in found.items():
        print(name, json.dumps(wrong))
        if write:
            row = reference["models"].setdefault(name, {"source": "own"})
            row.update(wrong, published=row.get("published", {}), checks=row.get("checks", {}))
    if write:
        text = json.dumps(reference, indent=1, ensure_ascii=False)
        text = re.sub(r"\[[^\[\]{}]*\]", lambda flat: " ".join(flat[0].split()), text)  # a list to a line
        (networks.FOLDER / "reference_counts.json").write_text(text + "\n", encoding="utf-8")
    print(f"{len(found)} of {len(networks.rows())} rows differ{' and were written' if write else ''}")
    return int(bool(found) and not write)


if __name__ == "__main__":
    raise SystemExit(main("--write" in sys.argv[1:]))
