"""What torchvision and timm call the layers of AlexNet, VGG and the residual networks, and the input that
their weights expect.

Each function takes the paths of a network's own convolutions, batch norms and linear layers, in the order
they run, and returns the public names in the same order.
"""

import re
from collections.abc import Callable, Iterable, Sequence

# mean and standard deviation of ImageNet's training images, red, green, blue in 0..1
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
HALVES = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}  # timm's resnetv2

Rules = Iterable[tuple[str, str | Callable[[re.Match[str]], str]]]


def _renamed(paths: Sequence[str], rules: Rules) -> list[str]:
    """Each path after all substitutions (pattern, replacement), one after another."""
    names = []
    for path in paths:
        for pattern, replacement in rules:
            path = re.sub(pattern, replacement, path)
        names.append(path)
    return names


def _less(by: int, before: str, after: str = ".") -> Callable[[re.Match[str]], str]:
    """A replacement: the number matched, less `by`, between two texts."""
    return lambda match: f"{before}{int(match[1]) - by}{after}"


def resnet_names(paths: Sequence[str]) -> list[str]:
    """torchvision and timm: conv3_x.0.shortcut.bn is layer2.0.downsample.1."""
    rules: Rules = (
        (r"^conv1\.conv", "conv1"),
        (r"^conv1\.bn", "bn1"),
        (r"^conv(\d)_x\.", _less(1, "layer")),
        (r"shortcut\.conv", "downsample.0"),
        (r"shortcut\.bn", "downsample.1"),
        (r"^head\.", ""),
    )
    return _renamed(paths, rules)


def preact_names(paths: Sequence[str]) -> list[str]:
    """timm's resnetv2: conv3_x.0.shortcut is stages.1.blocks.0.downsample.conv."""
    rules: Rules = (
        (r"^conv1\.", "stem."),
        (r"^conv(\d)_x\.", _less(2, "stages.", ".blocks.")),
        (r"\.body\.", "."),
        (r"shortcut$", "downsample.conv"),
        (r"^post$", "norm"),
    )
    return _renamed(paths, rules)


def vgg_names(paths: Sequence[str]) -> list[str]:
    """torchvision: numbers in the list `features`, where ReLUs and pools count too, and in `classifier`."""
    names, at, group = [], 0, "1"
    for path in paths:
        if path.startswith("fc"):
            names.append(f"classifier.{3 * (int(path[2]) - 6)}")
        elif path.endswith(".bn"):
            names.append(f"features.{at - 1}")
            at += 1
        else:
            at += path[4] != group  # the pool between two groups
            group = path[4]
            names.append(f"features.{at}")
            at += 2
    return names


def alexnet_names(paths: Sequence[str]) -> list[str]:
    """torchvision: as `vgg_names`; the pools stand behind conv1 and conv2, dropout before fc6 and fc7."""
    numbers = {"conv1": 0, "conv2": 3, "conv3": 6, "conv4": 8, "conv5": 10, "fc6": 1, "fc7": 4, "fc8": 6}
    parts = [path.split(".")[0] for path in paths]
    return [f"{'features' if part.startswith('conv') else 'classifier'}.{numbers[part]}" for part in parts]
