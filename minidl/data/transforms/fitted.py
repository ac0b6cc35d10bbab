"""Preprocessing that is fitted on training images, and how it is kept: arrays inside a config.

    "gcn+zca"                     what Maxout and Network in Network did to CIFAR
    "lcn"                         ... to SVHN
    "standardise(per='pixel')"    less the mean image, over the deviation of each pixel
    "mean(per='pixel')"           less the mean image: AlexNet, the ResNets on CIFAR

A step sees what the steps before it made of the images. `fit_preprocess` returns a config for `preprocess`;
`split_arrays` and `join_arrays` take it apart for a file and put it together again.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from minidl.data.transforms import words
from minidl.data.transforms.contrast import batches, fit_zca
from minidl.data.transforms.preprocess import preprocess

Config = dict[str, Any]
Step = Callable[[Config, Any], Config]  # (config so far, images) -> what it adds to the config

_ORDER = ("gcn", "lcn", "zca", "mean")
_PER = {"pixel": (0,), "channel": (0, 1, 2), "all": (0, 1, 2, 3)}  # the axes a statistic is taken over


def fit_preprocess(text: str, images: Any, config: Mapping[str, Any] | None = None) -> Config:
    """A config for `preprocess`, fitted to uint8 images.  (N, H, W, C) -> {...}

    text: "gcn", "lcn", "zca", "mean", "standardise", several joined by +, with arguments as in
    "gcn(scale=55)+zca(bias=0.1)" or "mean(per='channel')" (or 'pixel', 'all'). `config` says how images are
    resized before. Images are read some at a time, from the first to the last, once for each fitted step,
    twice for a standardisation. "none" stands for no step at all. ValueError for a word that is none of
    these, or one that cannot come after another.
    """
    result: Config = {key: value for key, value in (config or {}).items() if key in ("resize", "crop", "bgr")}
    for _, step in check_preprocess(text):
        result |= step(result, images)
    return {"fitted": text, **result}


def check_preprocess(text: str) -> list[tuple[str, Step]]:
    """(key in the config, step) of each word of a text.  ValueError as `fit_preprocess`."""
    steps = [] if text == "none" else words.build(text, _STEPS, "preprocess")
    for i, (key, _) in enumerate(steps[1:]):
        if _ORDER.index(key) <= _ORDER.index(steps[i][0]):
            raise ValueError(
                f"preprocess {text!r}: {key!r} comes too late; the order is gcn, lcn, zca, then mean or "
                "standardise, each once"
            )
    return steps


def _gcn(scale: float = 55.0, bias: float = 0.0, eps: float = 1e-8) -> tuple[str, Step]:
    return "gcn", lambda config, images: {"gcn": {"scale": scale, "bias": bias, "eps": eps}}


def _lcn(size: int = 9, eps: float = 1e-4) -> tuple[str, Step]:
    return "lcn", lambda config, images: {"lcn": {"size": size, "eps": eps}}


def _zca(bias: float = 0.1) -> tuple[str, Step]:
    return "zca", lambda config, images: {"zca": fit_zca(_prepared(config, images), bias)._asdict()}


def _mean(per: str = "pixel") -> tuple[str, Step]:
    _check_per(per)
    # arrays even if they hold one number: a NumPy scalar is not plain data
    return "mean", lambda config, images: {"mean": np.asarray(_mean_of(config, images, per), np.float32)}


def _standardise(per: str = "channel") -> tuple[str, Step]:
    _check_per(per)

    def fit(config: Config, images: Any) -> Config:
        mean = _mean_of(config, images, per)
        std = np.sqrt(_mean_of(config, images, per, lambda x: (x - mean) ** 2))  # so that nothing cancels
        return {
            "mean": np.asarray(mean, np.float32),
            "std": np.asarray(np.where(std > 0, std, 1), np.float32),
        }

    return "mean", fit


_STEPS: dict[str, Callable[..., tuple[str, Step]]] = {
    "gcn": _gcn,
    "lcn": _lcn,
    "zca": _zca,
    "mean": _mean,
    "standardise": _standardise,
}


def _check_per(per: str) -> None:
    if per not in _PER:
        raise ValueError(f"per is {per!r}, it may be {', '.join(map(repr, _PER))}")


def _prepared(config: Config, images: Any) -> Iterator[np.ndarray]:
    """The images after the steps so far, some at a time; windows are cut out of them later."""
    before = {key: value for key, value in config.items() if key != "crop"}
    return (preprocess(part, before) for part in batches(images))


def _mean_of(
    config: Config, images: Any, per: str, of: Callable[[np.ndarray], np.ndarray] = np.asarray
) -> np.ndarray:
    """The mean of some function of the images: () or (C,) or (H, W, C), float64."""
    total: Any = 0.0
    numbers = 0
    for part in _prepared(config, images):
        total = total + of(part).sum(axis=_PER[per], dtype=np.float64)
        numbers += part.size
    return total / (numbers / np.size(total))


def split_arrays(config: Mapping[str, Any] | None) -> tuple[Config | None, dict[str, np.ndarray]]:
    """(the config as JSON takes it, its arrays): {"zca": {"matrix": A}} -> {"zca": {}}, {"zca/matrix": A}"""
    if config is None:
        return None, {}
    plain: Config = {}
    arrays: dict[str, np.ndarray] = {}
    for key, value in config.items():
        if isinstance(value, np.ndarray):
            arrays[key] = value
        elif isinstance(value, Mapping):
            plain[key], inner = split_arrays(value)
            arrays |= {f"{key}/{name}": array for name, array in inner.items()}
        else:
            plain[key] = value
    return plain, arrays


def join_arrays(plain: Mapping[str, Any] | None, arrays: Mapping[str, np.ndarray]) -> Config | None:
    """The inverse of `split_arrays`.  ValueError for a config that is no table."""
    if plain is None:
        return None
    if not isinstance(plain, Mapping):
        raise ValueError(f"preprocess is a {type(plain).__name__}, not a table")
    config: Config = {
        key: dict(value) if isinstance(value, Mapping) else value for key, value in plain.items()
    }
    for path, array in arrays.items():
        *outer, name = path.split("/")
        place = config
        for key in outer:
            place = place.setdefault(key, {})
        place[name] = array
    return config
