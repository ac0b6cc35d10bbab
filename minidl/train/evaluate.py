"""Running a trained network over images: evaluate and predict."""

from typing import Any

import numpy as np

from minidl import backend, ops
from minidl.autograd import Tensor, no_grad
from minidl.data import Dataset, Loader, transforms
from minidl.errors import ShapeError
from minidl.nn import Module, as_input, mode
from minidl.train.inputs import Kind, as_data, check_fit, check_labels, kind_of
from minidl.train.metrics import Metrics


def evaluate(model: Module, data: Any, labels: Any = None, *, batch_size: int = 256) -> dict[str, float]:
    """See `Model.evaluate`."""
    source = as_data(data, labels, "evaluate")
    check_fit(model, kind_of(source, "evaluate"), "evaluate")
    split = source.test if isinstance(source, Dataset) else source
    check_labels(model, split, "evaluate")
    total = run_over(model, Loader(split, batch_size=batch_size, preprocess=loading(model)))
    return {"loss": total.loss, "accuracy": total.accuracy, "top5": total.top5}


def predict(model: Module, images: Any, *, batch_size: int = 256) -> np.ndarray:
    """See `Model.predict`."""
    array = np.asarray(images.numpy() if isinstance(images, Tensor) else images)
    if array.ndim != 4:
        cure = "; for one image pass image[None]" if array.ndim == 3 else ""
        raise ShapeError(f"predict: images have shape {array.shape}, they must be (N, H, W, C){cure}")
    if len(array) == 0:
        raise ShapeError(f"predict: images have shape {array.shape}: a batch of size 0")
    if batch_size < 1:
        raise ValueError(f"predict: batch_size is {batch_size}, it must be at least 1")
    check_fit(model, Kind(array.shape[1:], array.dtype == np.uint8), "predict")
    parts = []
    with no_grad(), mode(model, False):
        for start in range(0, len(array), batch_size):
            parts.append(ops.softmax(model(as_batch(model, array[start : start + batch_size]))).numpy())
    return np.concatenate(parts)


def run_over(model: Module, loader: Loader) -> Metrics:
    """Loss and accuracies of the model in evaluation mode over all batches."""
    total = Metrics()
    with no_grad(), mode(model, False):
        for x, y in loader:
            logits = model(as_batch(model, x))
            total.update(ops.cross_entropy(logits, y).item(), logits.numpy(), y)
    return total


def loading(model: Module) -> dict[str, Any] | None:
    """What a Loader's thread does to images: all of `preprocessing` on the CPU, nothing for another device,
    where `as_batch` does it to a quarter of the bytes."""
    first = next(model.parameters(), None)
    return preprocessing(model) if first is None or first.device == "cpu" else None


def as_batch(model: Module, x: np.ndarray) -> Tensor:
    """A batch of images as a Tensor that the model can take: what is still uint8 is preprocessed where the
    model computes."""
    first = next(model.parameters(), None)
    if x.dtype != np.uint8 or first is None:
        return as_input(model, transforms.preprocess(x, preprocessing(model)))
    images = transforms.preprocess(backend.asarray(x, first.device), preprocessing(model))
    return Tensor(images).to(dtype=first.dtype)


def preprocessing(model: Module) -> dict[str, Any]:
    """What happens to uint8 images before the network sees them; {} divides by 255."""
    return getattr(model, "preprocess", None) or {}
