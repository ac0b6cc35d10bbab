"""Ensemble: several trained networks that answer as one, by the mean of their class probabilities."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from minidl.nn import Module
from minidl.train import evaluate as run_evaluation
from minidl.train import predict as run_prediction
from minidl.train.crops import name
from minidl.train.evaluate import check_classes


class Ensemble:
    """Networks whose class probabilities are averaged.

        md.Ensemble([md.Model.load("runs/a/model.safetensors"), md.Model.load("runs/b/model.safetensors")])

    Each member preprocesses images in its own way, and where `crops` are cut takes them in its own size. The
    models are not copied.  ValueError for no models, TypeError for what is no Module, DataError, naming both,
    for models with different numbers of classes.
    """

    def __init__(self, models: Sequence[Module]) -> None:
        if isinstance(models, Module) or not isinstance(models, Iterable):
            raise TypeError(
                f"Ensemble: models is a {type(models).__name__}, expected a list of Modules; give one model "
                "as [model]"
            )
        self.models = list(models)
        if not self.models:
            raise ValueError("Ensemble: models is empty; give at least one model")
        for i, model in enumerate(self.models):
            if not isinstance(model, Module):
                raise TypeError(f"Ensemble: models[{i}] is a {type(model).__name__}, expected a Module")
        counts = [getattr(model, "num_classes", None) for model in self.models]
        check_classes(counts, [f"models[{i}] ({name(model)})" for i, model in enumerate(self.models)])

    def evaluate(
        self,
        data: Any,
        labels: Any = None,
        *,
        batch_size: int = 256,
        crops: int = 1,
        scales: Sequence[int] | None = None,
        crop_size: int | tuple[int, int] | None = None,
        resize: int | None = None,
        confusion: bool = False,
        each: bool = False,
    ) -> dict[str, Any]:
        """As `Model.evaluate`, of the mean of the members' probabilities.

        each: also "members", a list of every member's own loss, accuracy and top5, at no further cost.
        """
        return run_evaluation(
            self.models,
            data,
            labels,
            batch_size=batch_size,
            crops=crops,
            scales=scales,
            crop_size=crop_size,
            resize=resize,
            confusion=confusion,
            each=each,
        )

    def predict(
        self,
        images: Any,
        *,
        batch_size: int = 256,
        crops: int = 1,
        scales: Sequence[int] | None = None,
        crop_size: int | tuple[int, int] | None = None,
        resize: int | None = None,
    ) -> np.ndarray:
        """As `Model.predict`: the mean of the members' probabilities.  images (N, H, W, C) -> (N, K)"""
        return run_prediction(
            self.models,
            images,
            batch_size=batch_size,
            crops=crops,
            scales=scales,
            crop_size=crop_size,
            resize=resize,
        )
