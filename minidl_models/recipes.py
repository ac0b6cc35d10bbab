"""How the papers trained: one row of plain values for each network, which `fit(recipe="paper")` uses.

What is not given is `minidl.train.Recipe`'s default. Where a paper lowers the rate "when the error stops
improving", the shares of the run at which its authors did so stand here; a run of other length keeps them.
Batches are those of one machine, rates the papers' own. Where a paper is silent, its authors' code speaks,
and a comment says so.

Departures that hold for all:
- Images of ImageNet are expected at 256 pixels or more (`image_folder(path, size=256)`); the papers also
  sample larger ones.
- Colours are normalised as the model's `preprocess` says; AlexNet subtracted a mean image.
"""

from collections.abc import Mapping
from typing import Any

from minidl.train import Recipe

_SGD: Mapping[str, Any] = {"optimizer": "sgd", "momentum": 0.9, "nesterov": False}
_STEPS: Mapping[str, Any] = {"schedule": "steps", "gamma": 0.1}

# Lin et al. 2013, section 4: batches of 128, dropout, the rate divided by 10 twice; "translation and
# horizontal flipping" in table 1. Numbers are those of the authors' files, cuda-convnet NIN/*_params (a rate
# is its eps times the coefficient of the loss): biases learn twice as fast and do not decay, weights start
# normal. CIFAR-10 has no such file; it has SVHN's here.
_NIN: Mapping[str, Any] = {
    **_SGD,
    **_STEPS,
    "lr": 0.1,
    "weight_decay": 1e-4,
    "decay_biases": False,
    "lr_factors": {"bias": 2.0, "features.cccp3_2.*": 0.1},
    "milestones": (0.8, 0.9),
    "dropout": 0.5,
    "initial_std": 0.05,
    "epochs": 200,
}
_NIN_DATA: Mapping[str, Mapping[str, Any]] = {
    "cifar10": {"preprocess": "gcn+zca", "augment": "translate(4)+flip"},
    "cifar100": {
        "preprocess": "gcn+zca",
        "lr": 0.02,
        "weight_decay": 5e-4,
        "lr_factors": {"bias": 2.0},
        "initial_std": {"features.conv1": 0.001, "features.cccp1_*": 0.01, "*": 0.05},
    },
    "svhn": {"preprocess": "lcn"},
    "mnist": {"preprocess": "none"},
    "digits": {"preprocess": "none"},
}

# Krizhevsky et al. 2012, section 5; the rate is divided by 10 three times in "roughly 90 cycles". That biases
# learn twice as fast and do not decay is from Caffe's file.
_ALEXNET: Mapping[str, Any] = {
    **_SGD,
    **_STEPS,
    "lr": 0.01,
    "weight_decay": 5e-4,
    "decay_biases": False,
    "lr_factors": {"bias": 2.0},
    "milestones": (0.3, 0.6, 0.85),
    "dropout": 0.5,
    "augment": "random_crop(227)+flip+lighting",
    "epochs": 90,
}

# Simonyan and Zisserman 2014, section 3.1: 370,000 steps of 256, 74 epochs
_VGG: Mapping[str, Any] = {
    **_SGD,
    **_STEPS,
    "lr": 0.01,
    "weight_decay": 5e-4,
    "milestones": (0.3, 0.6, 0.85),
    "dropout": 0.5,
    "augment": "random_crop(224)+flip+lighting",
    "epochs": 74,
    "batch_size": 256,
}

# Szegedy et al. 2014, section 6: momentum 0.9, the rate falls by 4 % every 8 epochs, averaged weights; the
# first rate, decay and number of epochs are from Caffe's file.
_GOOGLENET: Mapping[str, Any] = {
    **_SGD,
    "lr": 0.01,
    "weight_decay": 2e-4,
    "decay_biases": False,
    "lr_factors": {"bias": 2.0},
    "schedule": "exponential",
    "gamma": 0.96,
    "every": 8,
    "ema_decay": 0.9999,
    "aux_weight": 0.3,
    "augment": "random_resized_crop(224)+flip+colour_jitter",
    "epochs": 250,
    "batch_size": 32,
}

# Ioffe and Szegedy 2015, section 4.2.2, BN-x30: a rate of 0.045 that falls six times as fast as GoogLeNet's,
# a fifth of its weight decay, batches of 32, no dropout; 6 million steps
_BN_INCEPTION: Mapping[str, Any] = {
    **_GOOGLENET,
    "lr": 0.045,
    "weight_decay": 4e-5,
    "gamma": 0.97,
    "every": 1,
    "dropout": 0.0,
    "augment": "random_resized_crop(224)+flip",
    "epochs": 150,
}

# Szegedy et al. 2015, section 8, and 2016, section 4; the momentum and the weight decay are those of the
# authors' code, and batch norms do not decay there
_INCEPTION: Mapping[str, Any] = {
    "optimizer": "rmsprop",
    "momentum": 0.9,
    "lr": 0.045,
    "weight_decay": 4e-5,
    "decay_biases": False,
    "decay_norms": False,
    "schedule": "exponential",
    "gamma": 0.94,
    "every": 2,
    "clip_norm": 2.0,
    "label_smoothing": 0.1,
    "ema_decay": 0.9999,
    "augment": "random_resized_crop(299)+flip+colour_jitter",
    "epochs": 100,
    "batch_size": 32,
}

# He et al. 2015, section 3.4: 600,000 steps of 256
_RESNET: Mapping[str, Any] = {
    **_SGD,
    **_STEPS,
    "lr": 0.1,
    "weight_decay": 1e-4,
    "milestones": (0.5, 0.75),
    "augment": "random_crop(224)+flip+lighting",
    "epochs": 120,
    "batch_size": 256,
}

# He et al. 2015, section 4.2: 64,000 steps of 128 on 45,000 images, the rate divided by 10 after 32,000 and
# 48,000; four pixels of padding and the mean image taken off
_RESNET_CIFAR: Mapping[str, Any] = {
    **_RESNET,
    "preprocess": "mean(per='pixel')",
    "augment": "pad_crop(4)+flip",
    "epochs": 182,
    "batch_size": 128,
}
_WARMED_UP: Mapping[str, Any] = {"warmup_steps": 400, "warmup_factor": 0.1}  # 110 layers; all of 2016

# He et al. 2016, appendix: the images of ImageNet as in their public code
_PREACT: Mapping[str, Any] = {
    **_RESNET,
    "milestones": (1 / 3, 2 / 3),
    "augment": "random_resized_crop(224)+flip+colour_jitter+lighting",
    "epochs": 90,
}

_FAMILIES: Mapping[str, Mapping[str, Any]] = {  # by the first letters of a name
    "nin": _NIN,
    "alexnet": _ALEXNET,
    "vgg": _VGG,
    "googlenet": _GOOGLENET,
    "bn_inception": _BN_INCEPTION,
    "inception": _INCEPTION,
    "resnet": _RESNET,
    "plain": _RESNET,
    "preact_resnet": _PREACT,
}


def recipes_of(name: str, variant: str, input_shape: tuple[int, int, int]) -> dict[str, Recipe]:
    """{"paper": the recipe}: how the network of that name was trained.

    variant is the data set where a paper trained differently on each; images are cut to `input_shape`.
    """
    family = next((prefix for prefix in _FAMILIES if name.startswith(prefix)), None)
    if family is None:
        raise ValueError(f"recipes: no row of the table is for {name}; add its paper's")
    row = dict(_FAMILIES[family])
    if name == "nin":
        row |= _NIN_DATA[variant]
    elif _FAMILIES[family] in (_RESNET, _PREACT) and input_shape[0] == 32:
        row = {**_RESNET_CIFAR}
        if name.startswith("preact") or name.endswith("110"):
            row |= _WARMED_UP
    if row.get("augment"):
        row["augment"] = row["augment"].replace("(227)", f"({input_shape[0]})")
    return {"paper": Recipe(**row)}
