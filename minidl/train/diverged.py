"""When numbers are no longer finite: which layer broke, and what to do about it."""

from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.autograd import Tensor, no_grad
from minidl.nn import Module
from minidl.train import checkpoint as checkpoints
from minidl.train.evaluate import as_batch
from minidl.train.run import Run


def check_weights(run: Run) -> None:
    """FloatingPointError, naming the first of them, if a parameter is not finite."""
    for name, parameter in run.model.named_parameters():
        if not np.isfinite(parameter.numpy()).all():
            batch = "" if run.batch == len(run.train) else f"batch {run.batch} of "
            raise FloatingPointError(
                f"fit: {name} is not finite after {batch}epoch {run.epoch + 1}. {_advice(run)}"
            )


def not_finite(run: Run, x: np.ndarray, loss: float, what: str = "loss") -> str:
    """What broke the loss: the first layer whose output is not finite, found by running the batch again.

    Call it while the model has the weights and the mode that the loss came from.
    """
    first: list[str] = []

    def look(path: str) -> Callable[..., None]:
        def hook(module: Module, inputs: Any, output: Any) -> None:
            y = output[0] if isinstance(output, tuple) else output
            if not first and isinstance(y, Tensor) and not np.isfinite(y.numpy()).all():
                broken = any(not np.isfinite(p.numpy()).all() for p in module.parameters())
                reason = ", whose weights are not finite" if broken else ""
                first.append(f"{path} ({type(module).__name__}){reason}")

        return hook

    leaves = [(path, m) for path, m in run.model.named_modules() if next(m.children(), None) is None]
    handles = [module.register_forward_hook(look(path)) for path, module in leaves]
    try:
        with no_grad():
            run.model(as_batch(run.model, x))
    finally:
        for handle in handles:
            handle.remove()
    images = "" if np.isfinite(x).all() else "the images of this batch are not finite; "
    layer = (
        f"the first output that is not finite is that of {first[0]}" if first else "all outputs are finite"
    )
    return f"fit: the {what} is {loss} in epoch {run.epoch + 1}; {images}{layer}. {_advice(run)}"


def _advice(run: Run) -> str:
    last = "" if run.folder is None else f" The last checkpoint is {checkpoints.latest(run.folder)}."
    return f"Train with a lower learning rate, or clip the gradients.{last}"
