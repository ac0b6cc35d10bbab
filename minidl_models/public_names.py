"""What torchvision, timm and TensorFlow's slim library call the layers of the Inception networks.

Each function takes the paths of a network's own convolutions, batch norms and linear layers, in the order
they run, and returns the public names in the same order, or as path -> name in the order they have there. In
slim a convolution's name is its variable
scope, and its batch norm's lies inside; slim numbers the layers of a branch by letters (Conv2d_0a_1x1,
Conv2d_0b_3x3), pools included, and calls what shrinks the image Conv2d_1a. Where it breaks its own rule the
name stands in a table of exceptions.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

HALVES = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}  # the input all these weights expect

# a network's table in branch notation: one path, a list of branches, or a residual (branches, scale, ReLU)
Row = str | Sequence[str] | tuple[Sequence[str], float, bool]

_SLIM_V1 = {"Mixed_5b/Branch_2/Conv2d_0b_3x3": "Mixed_5b/Branch_2/Conv2d_0a_3x3"}
_SLIM_V3 = {
    "Mixed_5c/Branch_1/Conv2d_0a_1x1": "Mixed_5c/Branch_1/Conv2d_0b_1x1",
    "Mixed_5c/Branch_1/Conv2d_0b_5x5": "Mixed_5c/Branch_1/Conv_1_0c_5x5",
    "Mixed_6a/Branch_0/Conv2d_1a_3x3": "Mixed_6a/Branch_0/Conv2d_1a_1x1",
    "Mixed_6a/Branch_1/Conv2d_1a_3x3": "Mixed_6a/Branch_1/Conv2d_1a_1x1",
    "Mixed_7b/Branch_1/Conv2d_0c_3x1": "Mixed_7b/Branch_1/Conv2d_0b_3x1",
}
_SLIM_V4 = {"Mixed_3a/Branch_1/Conv2d_1a_3x3": "Mixed_3a/Branch_1/Conv2d_0a_3x3"}


def googlenet_torchvision(paths: Sequence[str]) -> dict[str, str]:
    """inc3a.1.0.conv is inception3a.branch2.0.conv."""
    stem = {"conv1": "conv1", "conv2r": "conv2", "conv2": "conv3"}
    names = []
    for path in paths:
        stage, *inside = path.split(".")
        if stage.startswith("inc"):
            inside[0] = f"branch{int(inside[0]) + 1}"
            stage = "inception" + stage[3:]
        elif stage == "head":
            stage, inside = "fc", []
        names.append(".".join([stem.get(stage, stage), *inside]))
    return _heads_before("head", paths, names)


def inception_v3_torch(paths: Sequence[str]) -> dict[str, str]:
    """torchvision and timm: mixed5b.1.0.conv is Mixed_5b.branch5x5_1.conv."""

    def numbered(branch: str, count: int) -> list[str]:
        return [f"branch{branch}_{i}" for i in range(1, count + 1)]

    module_7 = ["branch1x1", "branch3x3_1", "branch3x3_2a", "branch3x3_2b"]
    module_7 += [*numbered("3x3dbl", 2), "branch3x3dbl_3a", "branch3x3dbl_3b", "branch_pool"]
    modules = {
        "5": ["branch1x1", *numbered("5x5", 2), *numbered("3x3dbl", 3), "branch_pool"],
        "6a": ["branch3x3", *numbered("3x3dbl", 3)],
        "6": ["branch1x1", *numbered("7x7", 3), *numbered("7x7dbl", 5), "branch_pool"],
        "7a": [*numbered("3x3", 2), *numbered("7x7x3", 4)],
        "7": module_7,
    }
    kernels = {"conv1a": 3, "conv2a": 3, "conv2b": 3, "conv3b": 1, "conv4a": 3}

    def names(stage: str) -> list[str]:
        if stage in kernels:
            return [f"Conv2d_{stage[4:]}_{kernels[stage]}x{kernels[stage]}"]
        if stage.startswith("mixed"):
            at = stage[5:]
            return [f"Mixed_{at}.{name}" for name in modules.get(at, modules.get(at[0], []))]
        return {"aux": ["AuxLogits.conv0", "AuxLogits.conv1", "AuxLogits.fc"], "head": ["fc"]}[stage]

    return _heads_before("mixed7a", paths, _in_order(paths, names, "{}.conv", "{}.bn"))


def inception_v4_timm(paths: Sequence[str]) -> list[str]:
    """features.0 is conv1a, and so on; c1.1.1.0.conv is features.19.branch1_1a.conv."""
    stages = list(dict.fromkeys(path.split(".")[0] for path in paths))
    names = []
    for path in paths:
        stage, *branch, leaf = path.split(".")
        if stage in ("head", "aux"):
            names.append("last_linear" if stage == "head" else path)  # timm has no auxiliary classifier
            continue
        inside = "".join(f".{at}" for at in branch)
        if stage in ("stem3a", "stem5a"):
            inside = ".conv"
        elif re.fullmatch(r"c\d", stage) and branch[0] in "12":
            inside = f".branch{branch[0]}_{branch[1]}" + "".join("ab"[int(at)] for at in branch[2:])
        elif branch:
            inside = ".branch" + inside[1:]
        names.append(f"features.{stages.index(stage)}{inside}.{leaf}")
    return names


def inception_resnet_v2_timm(paths: Sequence[str]) -> list[str]:
    """a1.body.1.0.conv is repeat.0.branch1.0.conv."""
    blocks = {"mixed5b": "mixed_5b", "reda": "mixed_6a", "redb": "mixed_7a", "c10": "block8"}
    repeats = {"a": "repeat", "b": "repeat_1", "c": "repeat_2"}
    names = []
    for path in paths:
        stage, *inside = path.split(".")
        number = re.fullmatch(r"([abc])(\d+)", stage)
        if stage in ("head", "aux"):
            names.append("classif" if stage == "head" else path)  # timm has no auxiliary classifier
        elif stage.startswith("conv"):
            names.append(f"conv2d_{stage[4:]}.{inside[0]}")
        else:
            block = blocks.get(stage) or (f"{repeats[number[1]]}.{int(number[2]) - 1}" if number else stage)
            inside = inside[1:] if inside[0] == "body" else inside
            names.append(f"{block}.conv2d" if inside == ["expand"] else f"{block}.branch{'.'.join(inside)}")
    return names


def googlenet_tf(paths: Sequence[str]) -> list[str]:
    """slim's InceptionV1: inc3a is its Mixed_3b, inc4e its Mixed_4f."""
    stages = {"conv1": ["Conv2d_1a_7x7"], "conv2r": ["Conv2d_2b_1x1"], "conv2": ["Conv2d_2c_3x3"]}
    stages["head"] = ["Logits/Conv2d_0c_1x1"]
    module = ["1:1", "1:1 1:3p", "1:1 1:3p", "max 1:1"]  # the widths do not matter

    def names(stage: str) -> list[str]:
        return stages.get(stage) or _slim_row(stage, f"Mixed_{stage[3]}{chr(ord(stage[4]) + 1)}", module)

    return _slim("InceptionV1", paths, names, _SLIM_V1)


def bn_inception_tf(table: Mapping[str, Row], paths: Sequence[str]) -> list[str]:
    """slim's InceptionV2: inc3a is its Mixed_3b, inc3c Mixed_4a; both halves of conv1 have one name."""
    blocks = {"inc3a": "3b", "inc3b": "3c", "inc3c": "4a", "inc4e": "5a", "inc5a": "5b", "inc5b": "5c"}
    stages = {"conv1": ["Conv2d_1a_7x7"] * 2, "conv2r": ["Conv2d_2b_1x1"], "conv2": ["Conv2d_2c_3x3"]}
    stages["head"] = ["Logits/Conv2d_1c_1x1"]

    def names(stage: str) -> list[str]:
        block = blocks.get(stage) or f"4{chr(ord(stage[-1]) + 1)}"
        return stages.get(stage) or _slim_row(stage, f"Mixed_{block}", table[stage])

    return _slim("InceptionV2", paths, names, {})


def inception_v3_tf(table: Mapping[str, Row], paths: Sequence[str]) -> list[str]:
    """slim's InceptionV3; `table` is the network's, in branch notation."""
    heads = {
        "aux": ["AuxLogits/Conv2d_1b_1x1", "AuxLogits/Conv2d_2a_5x5", "AuxLogits/Conv2d_2b_1x1"],
        "head": ["Logits/Conv2d_1c_1x1"],
    }

    def names(stage: str) -> list[str]:
        return heads.get(stage) or _slim_row(stage, f"Mixed_{stage[5:]}", table[stage])

    return _slim("InceptionV3", paths, names, _SLIM_V3)


def inception_v4_tf(table: Mapping[str, Row], paths: Sequence[str]) -> list[str]:
    """slim's InceptionV4: a1 is its Mixed_5b, b1 Mixed_6b, c1 Mixed_7b."""
    blocks = {"stem3a": "3a", "stem4a": "4a", "stem5a": "5a", "reda": "6a", "redb": "7a"}
    heads = {
        "aux": ["AuxLogits/Conv2d_1b_1x1", "AuxLogits/Conv2d_2a", "AuxLogits/Aux_logits"],
        "head": ["Logits/Logits"],
    }

    def names(stage: str) -> list[str]:
        if stage in heads:
            return heads[stage]
        if re.fullmatch(r"[abc]\d", stage):
            blocks[stage] = f"{5 + 'abc'.index(stage[0])}{'abcdefgh'[int(stage[1])]}"
        return _slim_row(stage, f"Mixed_{blocks.get(stage)}", table[stage])

    return _slim("InceptionV4", paths, names, _SLIM_V4)


def inception_resnet_v2_tf(table: Mapping[str, Row], paths: Sequence[str]) -> list[str]:
    """slim's InceptionResnetV2: a1 is its Repeat/block35_1, c10 its Block8."""
    blocks = {"mixed5b": "Mixed_5b", "reda": "Mixed_6a", "redb": "Mixed_7a", "c10": "Block8"}
    repeats = {"a": "Repeat/block35", "b": "Repeat_1/block17", "c": "Repeat_2/block8"}
    heads = {
        "aux": ["AuxLogits/Conv2d_1b_1x1", "AuxLogits/Conv2d_2a_5x5", "AuxLogits/Logits"],
        "head": ["Logits/Logits"],
    }

    def names(stage: str) -> list[str]:
        if stage in heads:
            return heads[stage]
        if isinstance(table[stage], tuple):
            return _slim_row(stage, blocks.get(stage) or f"{repeats[stage[0]]}_{stage[1:]}", table[stage])
        return _slim_row(stage, blocks.get(stage, ""), table[stage])

    found = _slim("InceptionResnetV2", paths, names, {})
    # a branch that is a 1x1 convolution and no more has no letter here
    return [re.sub(r"((Mixed_5b|block\w+|Block8)/Branch_0/Conv2d)_0a", r"\1", name) for name in found]


def _heads_before(stage: str, paths: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """path -> name, the auxiliary classifiers moved from the end to in front of a stage."""
    at = [path.split(".")[0] for path in paths].index(stage)
    main = [path for path in paths if not path.startswith("aux")]
    order = [*main[:at], *(path for path in paths if path.startswith("aux")), *main[at:]]
    return {path: names[paths.index(path)] for path in order}


def _in_order(
    paths: Sequence[str], names: Callable[[str], Sequence[str]], conv: str, batch_norm: str
) -> list[str]:
    """`names(stage)` are the convolutions and linear layers of a stage in order.

    `conv` and `batch_norm` make of such a name those of a convolution and the batch norm behind it; a layer
    without one keeps it as it is.
    """
    found, left, name = [], dict[str, Iterator[str]](), ""
    for path in paths:
        stage, leaf = path.split(".")[0], path.split(".")[-1]
        if leaf == "bn":
            found.append(batch_norm.format(name))
            continue
        if stage not in left:
            left[stage] = iter(names(stage))
        name = next(left[stage])
        found.append(conv.format(name) if leaf == "conv" else name)
    return found


def _slim(
    scope: str, paths: Sequence[str], names: Callable[[str], Sequence[str]], exceptions: Mapping[str, str]
) -> list[str]:
    """The names of all layers inside `scope`."""

    def regular_or_not(stage: str) -> list[str]:
        return [f"{scope}/{exceptions.get(name, name)}" for name in names(stage)]

    return _in_order(paths, regular_or_not, "{}", "{}/BatchNorm")


def _slim_row(stage: str, block: str, row: Row) -> list[str]:
    """The convolutions of one row of a table: a single one (conv1a) or those of a block's branches."""
    if isinstance(row, str):
        size = row.split(":")[1][0]
        return [f"Conv2d_{stage[4:]}_{size}x{size}"]
    if isinstance(row, tuple):
        return [*_slim_row(stage, block, row[0]), f"{block}/Conv2d_1x1"]  # the last one expands
    return [f"{block}/{name}" for name in _slim_branches(row)]


def _slim_branches(row: Sequence[str]) -> Iterator[str]:
    """Branch_0/Conv2d_0a_1x1 and so on, for branches in notation."""
    for i, spec in enumerate(row):
        for letter, layer in zip("abcdefgh", re.split(r"[ {|}]+", spec.rstrip("}"))):
            match = re.fullmatch(r"\d+:(\d)x?(\d?)(s2)?(p?)", layer)
            if match is None:
                continue  # a pool takes a letter, too
            rows, columns, strided, padded = match[1], match[2] or match[1], match[3], match[4]
            shrinks = strided or (rows + columns != "11" and not padded)
            yield f"Branch_{i}/Conv2d_{'1a' if shrinks else f'0{letter}'}_{rows}x{columns}"
