"""Model: a module that can be trained, evaluated, saved and looked at. The methods' bodies live in train,
inspection and io."""

import contextlib
import inspect
import os
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Self

import numpy as np

from minidl import nn, streams
from minidl.errors import CheckpointError
from minidl.inspection.summary import summary as layer_table
from minidl.io import load_arrays, save_arrays
from minidl.train import History, Recipe
from minidl.train import evaluate as run_evaluation
from minidl.train import fit as run_training
from minidl.train import predict as run_prediction
from minidl.train.callbacks import Callback


class Model(nn.Module):
    """A network of images: define `__init__` and `forward` (images (N, H, W, C) -> logits (N, K)), and train
    it with `fit`.

    input_shape   (H, W, C) of the images it takes; None accepts any
    smallest      if set, images of any size with at least so many rows and columns are taken too
    num_classes   K; None if unknown
    preprocess    what is done to uint8 images first: {"mean": [...], "std": [...], "resize": [H, W]}, all
                  optional; they are divided by 255 in any case. Float images pass unchanged.
    aux_weight    weight of the auxiliary losses for a `forward` that returns (logits, (auxiliary logits, ...))
                  in training mode: `fit` minimises loss + aux_weight * their sum, and reports the loss alone
    A model remembers the arguments it was built with, so that `reset` and `load` can build it again.
    """

    input_shape: tuple[int, int, int] | None = None
    smallest: int | None = None
    num_classes: int | None = None
    aux_weight: float = 0.3  # of GoogLeNet: Szegedy et al. 2014, arXiv:1409.4842, section 5
    preprocess: dict[str, Any] | None = None

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        model = super().__new__(cls)
        signature = inspect.signature(cls.__init__)
        with contextlib.suppress(
            TypeError
        ):  # __init__ itself will say what is wrong; and copy.copy gives none
            bound = signature.bind(model, *args, **kwargs).arguments
            arguments = dict(list(bound.items())[1:])
            for name, parameter in signature.parameters.items():
                if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                    arguments |= arguments.pop(name, {})
            model.remember_call(cls, arguments)
        return model

    def remember_call(self, build: Callable[..., "Model"], arguments: dict[str, Any]) -> None:
        """Note that `build(**arguments)` made this model."""
        self.__dict__["_call"] = (build, arguments)

    @property
    def config(self) -> dict[str, Any]:
        """{"name", "arguments"}: what builds this model again."""
        build, arguments = self.__dict__["_call"]
        return {"name": build.__name__, "arguments": dict(arguments)}

    def fit(
        self,
        data: Any,
        labels: Any = None,
        *,
        epochs: int = 10,
        batch_size: int = 128,
        validation: Any = 0.1,
        optimizer: Any = None,
        schedule: Any = None,
        recipe: Recipe | str | None = None,
        augment: Any = None,
        callbacks: Sequence[Callback] = (),
        checkpoint: str | os.PathLike[str] | None = None,
        resume: bool = False,
        seed: int | None = None,
        device: str | None = None,
        verbose: bool = True,
    ) -> History:
        """Train on images, going on from the weights as they are.

        data          a Dataset, its loader function or name, (images, labels), or anything with __len__ and
                      __getitem__
        epochs        passes over the training images; with `resume` the total
        validation    a share of the training images to hold out (the same ones in every run), a split, or
                      None; never the test split
        optimizer     an optimiser, or a function of the parameters; by default the recipe's
        schedule      a schedule, or a function of the optimiser; by default the recipe's, and constant for a
                      given optimiser
        augment       a transform of `minidl.data.transforms` or its name ("crop+flip"); by default the
                      recipe's, "" for none
        checkpoint    a folder that gets everything needed to go on, after each epoch; `resume` goes on from
                      its newest file
        seed          restart all random streams; None continues them

        A second call goes on training with a new optimiser and schedule; `reset` starts afresh. Ctrl-C ends
        it and leaves the model as it is. FloatingPointError when the loss is not finite, naming the first
        layer whose output is not; DataError when the data does not fit the model; CheckpointError for a
        checkpoint that is damaged or of another kind of run.
        """
        return run_training(
            self,
            data,
            labels,
            epochs=epochs,
            batch_size=batch_size,
            validation=validation,
            optimizer=optimizer,
            schedule=schedule,
            recipe=recipe,
            augment=augment,
            callbacks=callbacks,
            checkpoint=checkpoint,
            resume=resume,
            seed=seed,
            device=device,
            verbose=verbose,
        )

    def evaluate(self, data: Any, labels: Any = None, *, batch_size: int = 256) -> dict[str, float]:
        """{"loss", "accuracy", "top5"} on the test split of a Dataset, or on the images given."""
        return run_evaluation(self, data, labels, batch_size=batch_size)

    def predict(self, images: Any, *, batch_size: int = 256) -> np.ndarray:
        """Class probabilities.  images (N, H, W, C), uint8 or preprocessed float -> (N, K)"""
        return run_prediction(self, images, batch_size=batch_size)

    def summary(self, input_shape: tuple[int, int, int] | None = None) -> str:
        """The layer table as text: kernel/stride/padding, output shape, parameters and multiply-adds."""
        return layer_table(self, input_shape)

    def reset(self) -> None:
        """Draw new initial weights, as if the model had just been built."""
        build, arguments = self.__dict__["_call"]
        self.load_state_dict(build(**arguments).to(dtype=next(self.parameters()).dtype).state_dict())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write weights and configuration as one safetensors file, whole or not at all.  TypeError if the
        arguments the model was built with are not plain data."""
        description = {"format": "minidl-model", "model": self.config, "preprocess": self.preprocess}
        try:
            save_arrays(path, self._state(), description)
        except TypeError as error:
            raise TypeError(
                f"save: the arguments {type(self).__name__} was built with must be numbers, strings, lists "
                f"or dicts to be saved ({error}); keep the weights with state_dict() instead"
            ) from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Build and fill a model from a file of `save`: `Model.load` those of the zoo, `MyNet.load` your own
        class.

        CheckpointError when the file is missing, damaged, or holds another model.
        """
        arrays, description = load_arrays(path)
        if description.get("format") != "minidl-model":
            raise CheckpointError(f"{path} holds no model (its format is {description.get('format')!r})")
        name, arguments = description["model"]["name"], description["model"]["arguments"]
        zoo = import_module("minidl_models")
        random = streams.get_state()
        if cls is not Model and name == cls.__name__:
            model: Any = cls(**arguments)
        elif name in zoo.names():
            model = zoo.create(name, **arguments)
        else:
            raise CheckpointError(
                f"{path} holds a {name}, which is not in the zoo; load it with its own class: "
                f"{name}.load(path)"
            )
        streams.set_state(random)  # the initial weights just drawn are replaced: as if nothing had been drawn
        if not isinstance(model, cls):
            raise CheckpointError(
                f"{path} holds a {name}, not a {cls.__name__}; load it with minidl.Model.load"
            )
        model.preprocess = description["preprocess"]
        dtypes = {array.dtype for array in arrays.values()}
        if len(dtypes) == 1:
            model.to(dtype=dtypes.pop())
        model.load_state_dict(arrays)
        return model
