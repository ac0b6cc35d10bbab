"""Running trained networks over images: evaluate and predict.

A prediction may be the mean of several: of views of an image (crops.py), of several networks. Their class
probabilities are averaged, as logarithms, so that the loss is finite however sure and wrong all of them are.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from minidl import backend, ops
from minidl.autograd import Tensor, no_grad
from minidl.data import Dataset, Loader, transforms
from minidl.data.rows import as_images
from minidl.errors import DataError, ShapeError
from minidl.nn import Module, as_input, mode
from minidl.ops import loss
from minidl.train.crops import Cut, Size, Views, plan
from minidl.train.inputs import Kind, as_data, check_labels, kind_of
from minidl.train.metrics import Metrics


def evaluate(
    models: Module | Sequence[Module],
    data: Any,
    labels: Any = None,
    *,
    batch_size: int = 256,
    crops: int = 1,
    scales: Sequence[int] | None = None,
    crop_size: int | Size | None = None,
    resize: int | None = None,
    confusion: bool = False,
    each: bool = False,
) -> dict[str, Any]:
    """See `Model.evaluate`, and `Ensemble.evaluate` for several models."""
    members, views = _as_list(models), Views(crops, scales, crop_size, resize)
    source = as_data(data, labels, "evaluate")
    kind = kind_of(source, "evaluate")
    cuts = [plan(model, kind, views, "evaluate") for model in members]
    split = source.test if isinstance(source, Dataset) else source
    for model in members:
        check_labels(model, split, "evaluate")
    total, alone = Metrics(confusion=confusion), [Metrics() for _ in members]
    if cuts == [None]:
        run_over(members[0], Loader(split, batch_size=batch_size, preprocess=loading(members[0])), total)
        alone = [total]
    else:
        for x, y in Loader(split, batch_size=batch_size):
            means = log_probabilities(members, cuts, x)
            loss.check_labels("cross_entropy", means[0], y)
            for metrics, logs in zip((*alone, total), (*means, _log_mean(iter(means))), strict=True):
                metrics.update(float(-logs[np.arange(len(y)), y].mean()), logs, y)
    result: dict[str, Any] = total.result()
    if confusion:
        result |= {"confusion": total.confusion, "per_class": total.per_class}
    return result | ({"members": [metrics.result() for metrics in alone]} if each else {})


def predict(
    models: Module | Sequence[Module],
    images: Any,
    *,
    batch_size: int = 256,
    crops: int = 1,
    scales: Sequence[int] | None = None,
    crop_size: int | Size | None = None,
    resize: int | None = None,
) -> np.ndarray:
    """See `Model.predict`, and `Ensemble.predict` for several models."""
    members, views = _as_list(models), Views(crops, scales, crop_size, resize)
    source = as_images(images.numpy() if isinstance(images, Tensor) else images)
    if len(source.shape) != 4:
        cure = "; for one image pass image[None]" if len(source.shape) == 3 else ""
        raise ShapeError(f"predict: images have shape {source.shape}, they must be (N, H, W, C){cure}")
    if len(source) == 0:
        raise ShapeError(f"predict: images have shape {source.shape}: a batch of size 0")
    if batch_size < 1:
        raise ValueError(f"predict: batch_size is {batch_size}, it must be at least 1")
    kind = Kind(source.shape[1:], source.dtype == np.uint8)
    cuts = [plan(model, kind, views, "predict") for model in members]

    parts = []
    for start in range(0, len(source), batch_size):
        x = np.asarray(source[start : start + batch_size])
        if cuts == [None]:
            parts.append(_run(members[0], x, ops.softmax))
        else:
            logs = _log_mean(iter(log_probabilities(members, cuts, x)))
            parts.append(np.exp(logs).astype(_dtype(members)))
    return np.concatenate(parts)


def run_over(
    model: Module, batches: Iterable[tuple[np.ndarray, np.ndarray]], total: Metrics | None = None
) -> Metrics:
    """Loss and accuracies of the model in evaluation mode over all batches, added to `total`."""
    total = total or Metrics()
    with no_grad(), mode(model, False):
        for x, y in batches:
            logits = model(as_batch(model, x))
            total.update(ops.cross_entropy(logits, y).item(), logits.numpy(), y)
    return total


def log_probabilities(
    models: Sequence[Module], cuts: Sequence[Cut | None], x: np.ndarray
) -> list[np.ndarray]:
    """The logarithm of each model's class probabilities, averaged over views.  (N, H, W, C) -> (N, K) float64

    DataError, naming both, if two models have different numbers of classes.
    """
    means = [_log_mean(_of_views(model, cut, x)) for model, cut in zip(models, cuts, strict=True)]
    check_classes([mean.shape[1] for mean in means], [f"member {i}" for i in range(len(means))])
    return means


def check_classes(counts: Sequence[int | None], names: Sequence[str]) -> None:
    """DataError, naming both, if two counts of classes differ; None is unknown, and agrees with all."""
    known = [(count, name) for count, name in zip(counts, names, strict=True) if count is not None]
    for count, name in known:
        if count != known[0][0]:
            raise DataError(
                f"ensemble: {known[0][1]} has {known[0][0]} classes but {name} has {count}; predictions are "
                "averaged over the same classes alone"
            )


def _as_list(models: Module | Sequence[Module]) -> list[Module]:
    return [models] if isinstance(models, Module) else list(models)


def _dtype(models: Sequence[Module]) -> np.dtype:
    """The widest that one of the models computes in."""
    firsts = (next(model.parameters(), None) for model in models)
    return np.result_type(*(np.float32 if first is None else first.dtype for first in firsts))


def _of_views(model: Module, cut: Cut | None, x: np.ndarray) -> Iterator[np.ndarray]:
    """log_softmax of the model's answer to each view.  (N, H, W, C) -> (N, K), one after another"""
    if cut is None:
        yield _run(model, x, ops.log_softmax)
        return
    own = {key: value for key, value in preprocessing(model).items() if key not in ("resize", "crop")}
    for view in cut(x):
        yield _run(model, view, ops.log_softmax, own)


def _log_mean(logs: Iterator[np.ndarray]) -> np.ndarray:
    """log(mean(exp(logs))) of arrays of one shape, in float64."""
    total, count = next(logs).astype(np.float64), 1
    for each in logs:
        total = np.logaddexp(total, each, dtype=np.float64)
        count += 1
    return total - np.log(count)


def _run(
    model: Module, x: np.ndarray, op: Callable[[Tensor], Tensor], config: dict[str, Any] | None = None
) -> np.ndarray:
    """An op on the logits that the model in evaluation mode has for a batch.  (N, H, W, C) -> (N, K)"""
    with no_grad(), mode(model, False):
        return op(model(as_batch(model, x, config))).numpy()


def loading(model: Module) -> dict[str, Any] | None:
    """What a Loader's thread does to images: all of `preprocessing` where the host computes it, else nothing:
    on another device `as_batch` does it to a quarter of the bytes."""
    first, config = next(model.parameters(), None), preprocessing(model)
    return config if first is None or first.device == "cpu" or transforms.on_host(config) else None


def as_batch(model: Module, x: np.ndarray, config: dict[str, Any] | None = None) -> Tensor:
    """A batch of images as a Tensor that the model can take: what is still uint8 is preprocessed where the
    model computes, by `config` or else by `preprocessing`."""
    first, config = next(model.parameters(), None), preprocessing(model) if config is None else config
    if x.dtype != np.uint8 or first is None or transforms.on_host(config):
        return as_input(model, transforms.preprocess(x, config))
    images = transforms.preprocess(backend.asarray(x, first.device), config)
    return Tensor(images).to(dtype=first.dtype)


def preprocessing(model: Module) -> dict[str, Any]:
    """What happens to uint8 images before the network sees them; {} divides by 255."""
    return getattr(model, "preprocess", None) or {}
