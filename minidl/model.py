"""Model: a module that can be trained, evaluated, saved and looked at. The methods' bodies live in train,
inspection and io."""

import contextlib
import copy
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from types import MappingProxyType
from typing import Any, Literal, Self

import numpy as np

from minidl import model_file, nn
from minidl.data.transforms import check_config, split_arrays
from minidl.errors import CheckpointError
from minidl.inspection.summary import summary as layer_table
from minidl.io import WeightsReport, as_arrays, layouts, read_weights, save_arrays
from minidl.io.guard import shown
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
    preprocess    what is done to uint8 images first: {"mean": [...], "std": [...], "resize": [H, W] ...}, all
                  optional; they are divided by 255 in any case. Float images pass unchanged. See
                  `minidl.data.transforms.preprocess`.
    recipes       name -> `minidl.train.Recipe` that `fit(recipe=name)` trains by
    aux_weight    weight of the auxiliary losses for a `forward` that returns (logits, (auxiliary, ...))
                  in training mode: `fit` minimises loss + aux_weight * their sum, and reports the loss alone
    A model remembers the arguments it was built with, so that `reset` and `load` can build it again. Modules
    whose names begin with "aux" are auxiliary classifiers, which only training needs.

    What other libraries' weights look like, for `load_weights`:

    public_names       layout -> function: own paths of all Conv2d, Linear and BatchNorm2d, in the order of
                       `named_modules` -> their names there, in the same order (or as path -> name, in the
                       order they have there)
    public_preprocess  layout -> what these weights expect of the input, as `preprocess`
    flattened          path of a Linear that reads a flattened image -> that image's (H, W, C)
    convolutional      layout -> paths of Linears that it stores as convolutions
    """

    input_shape: tuple[int, int, int] | None = None
    smallest: int | None = None
    num_classes: int | None = None
    aux_weight: float = 0.3  # of GoogLeNet: Szegedy et al. 2014, arXiv:1409.4842, section 5
    preprocess: dict[str, Any] | None = None
    recipes: Mapping[str, Recipe] = MappingProxyType({})
    as_built: bool = True  # no weights have been learned or loaded
    public_names: Mapping[str, Callable[[list[str]], list[str] | dict[str, str]]] = MappingProxyType({})
    public_preprocess: Mapping[str, dict[str, Any]] = MappingProxyType({})
    flattened: Mapping[str, tuple[int, int, int]] = MappingProxyType({})
    convolutional: Mapping[str, Sequence[str]] = MappingProxyType({})

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
        epochs: int | None = None,
        batch_size: int | None = None,
        validation: Any = 0.1,
        optimizer: Any = None,
        schedule: Any = None,
        recipe: Recipe | str | None = None,
        augment: Any = None,
        callbacks: Sequence[Callback] = (),
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_minutes: float | None = None,
        checkpoint_keep: int = 2,
        resume: bool = False,
        seed: int | None = None,
        device: str | None = None,
        verbose: bool = True,
    ) -> History:
        """Train on images, going on from the weights as they are.

        data          a Dataset, its loader function or name, (images, labels), or anything with __len__ and
                      __getitem__
        epochs        passes over the training images (10, or as the recipe says that is given); with `resume`
                      the total
        batch_size    images in a step (128, or as the recipe says that is given)
        validation    a share of the training images to hold out (the same ones in every run), a split, or
                      None; never the test split
        optimizer     an optimiser, or a function of the parameters; by default the recipe's
        schedule      a schedule, or a function of the optimiser; by default the recipe's, and constant for a
                      given optimiser
        recipe        how to train, see `minidl.train.Recipe`: "paper" is the one in `recipes`, for the models
                      of the zoo their paper's, with its epochs, batch size, initial weights (of a model that
                      is as it was built) and preprocessing (fitted to the training images, and kept)
        augment       a transform of `minidl.data.transforms` or its name ("crop+flip"); by default the
                      recipe's, "" for none
        checkpoint    a folder that gets everything needed to go on, after each epoch and when the run is
                      stopped; `resume` goes on from its furthest file, with the same epochs to the bits of a
                      run never stopped (with more, a schedule over the whole run goes on as if made for them)
        checkpoint_minutes  write one in the midst of an epoch too when the last is so old; None for never
        checkpoint_keep     how many of finished epochs stay in the folder
        seed          restart all random streams; None continues them

        A second call goes on training with a new optimiser and schedule; `reset` starts afresh. Ctrl-C ends
        it after the step under way and leaves the model as it is; a second one raises KeyboardInterrupt at
        once. With a checkpoint folder SIGTERM ends it likewise, and is then raised again.
        FloatingPointError when the loss is not finite, naming the first layer whose output is not; DataError
        when the data does not fit the model; CheckpointError for a checkpoint that is damaged, of another
        kind of run or cannot be written, and for a folder that another run is using.
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
            checkpoint_minutes=checkpoint_minutes,
            checkpoint_keep=checkpoint_keep,
            resume=resume,
            seed=seed,
            device=device,
            verbose=verbose,
        )

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
    ) -> dict[str, Any]:
        """{"loss", "accuracy", "top5"} on the test split of a Dataset, or on the images given.

        crops      10 or 144: the class probabilities are averaged over so many crops of each image and the
                   loss is that of the average. 10 are AlexNet's, the corners and centre of the middle square
                   and their mirrors; 144 are GoogLeNet's. 1 takes the image as `preprocess` has it
        scales     average over the whole image instead, with its shorter side at each of these lengths, plain
                   and mirrored; for models that take any size
        crop_size  rows and columns of a crop; by default the model's
        resize     the length of images' shorter side before 10 crops are cut; by default 256 for crops of
                   224, in proportion for others
        confusion  also "confusion" (K, K): how many images of each true class (row) were taken for each class
                   (column), and "per_class" (K,): the accuracy on each class, NaN without images

        Crops are cut from images as they are, then preprocessed without the "resize" and "crop" of
        `preprocess`; see `minidl.train.crops`. ValueError for options that are none, ShapeError for sizes
        that the model or the images cannot have.
        """
        return run_evaluation(
            self,
            data,
            labels,
            batch_size=batch_size,
            crops=crops,
            scales=scales,
            crop_size=crop_size,
            resize=resize,
            confusion=confusion,
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
        """Class probabilities.  images (N, H, W, C), uint8 or preprocessed float -> (N, K)

        crops, scales, crop_size, resize: averaged over views of each image, as in `evaluate`.
        """
        return run_prediction(
            self,
            images,
            batch_size=batch_size,
            crops=crops,
            scales=scales,
            crop_size=crop_size,
            resize=resize,
        )

    def summary(self, input_shape: tuple[int, int, int] | None = None) -> str:
        """The layer table as text: kernel/stride/padding, output shape, parameters and multiply-adds."""
        return layer_table(self, input_shape)

    def reset(self) -> None:
        """Draw new initial weights, as if the model had just been built; images are resized as before."""
        build, arguments = self.__dict__["_call"]
        new = build(**arguments)
        kept = {key: value for key, value in (self.preprocess or {}).items() if key == "resize"}
        self.preprocess = {**kept, **(new.preprocess or {})} or None
        self.aux_weight = new.aux_weight
        for mine, fresh in zip(self.modules(), new.modules(), strict=True):
            if isinstance(mine, nn.Dropout) and isinstance(fresh, nn.Dropout):
                mine.p = fresh.p
        self.load_state_dict(new.to("cpu", next(self.parameters()).dtype).state_dict())
        self.as_built = True

    def load_state_dict(self, state: dict[str, np.ndarray], strict: bool = True) -> None:
        super().load_state_dict(state, strict)
        self.as_built = False

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write weights and configuration as one safetensors file, whole or not at all.  TypeError if the
        arguments the model was built with are not plain data."""
        preprocess, fitted = split_arrays(self.preprocess)
        description = {"format": model_file.FORMAT, "model": self.config, "preprocess": preprocess}
        arrays = {f"{model_file.FITTED}{name}": array for name, array in fitted.items()}
        try:
            save_arrays(path, {**self._host_state(), **arrays}, description)
        except TypeError as error:
            raise TypeError(
                f"save: the arguments {type(self).__name__} was built with must be numbers, strings, lists "
                f"or dicts to be saved ({error}); keep the weights with state_dict() instead"
            ) from error

    @classmethod
    def load(cls, path: str | os.PathLike[str], weights: Literal["raw", "ema"] | None = None) -> Self:
        """Build and fill a model from a file of `save` or a checkpoint of `fit`: `Model.load` those of the
        zoo, `MyNet.load` your own class.

        weights: which of a checkpoint, "raw" as they were trained or "ema", their moving average; by default
        the average if the run keeps one, as `fit` itself does at its end.
        CheckpointError when the file is missing, damaged, or holds another model or not these weights;
        ValueError for other words.
        """
        description, arrays = model_file.read(path, weights)
        name = description["name"]
        zoo = import_module("minidl_models")
        if cls is not Model and name == cls.__name__:
            build: Callable[..., Any] = cls
        elif name in zoo.names():
            build = partial(zoo.create, name)
        else:
            raise CheckpointError(
                f"{path} holds a {shown(name)}, which is not in the zoo; load it with its own class: "
                f"{shown(name)}.load(path)"
            )
        model = model_file.built(path, build, description["arguments"], arrays)
        if not isinstance(model, cls):
            raise CheckpointError(
                f"{path} holds a {name}, not a {cls.__name__}; load it with minidl.Model.load"
            )
        model.preprocess = description["preprocess"]
        return model

    def weight_names(self, layout: str) -> dict[str, str]:
        """Path of every Conv2d, Linear and BatchNorm2d -> its name in a layout, in the order of that layout.

        ValueError, naming the layouts this model has, for any other.
        """
        kinds = (nn.Conv2d, nn.Linear, nn.BatchNorm2d)
        own = [path for path, module in self.named_modules() if isinstance(module, kinds)]
        if layout == "minidl":
            return {path: path for path in own}
        if layout not in self.public_names:
            raise ValueError(
                f"weights: {self.config['name']} has no layout {layout!r}; it has "
                f"{', '.join(['minidl', *self.public_names])}"
            )
        names = self.public_names[layout](own)
        return dict(names) if isinstance(names, Mapping) else dict(zip(own, names, strict=True))

    def load_weights(
        self,
        source: str | os.PathLike[str] | Mapping[str, Any],
        *,
        layout: str = "minidl",
        head: str = "load",
        strict: bool = True,
    ) -> WeightsReport:
        """Fill the network from a file of weights or a dict of arrays, and say what was done with each.

        source  a .safetensors, .npz or torch file (.pth; nothing in it is run), or name -> array
        layout  whose names and shapes these are: "minidl", "timm", "torchvision" or "tf"; a model of the zoo
                has those its weights are published in
        head    "skip" leaves the classifier (the last Linear, or convolution) and the auxiliary ones as they
                are: for weights of other classes. They are reported as missing, which is then no error.
        strict  raise when a tensor is missing or unexpected; without, take what fits by name

        Whatever the layouts do differently is done on the way, and reported: axes are transposed, a linear
        layer's rows put from (C, H, W) to (H, W, C) order, convolutions taken for linear layers, the first of
        1001 classes (the background) dropped where the network has 1000, a gamma that TensorFlow did not
        learn taken as 1. "module." before every name (torch's DataParallel) is taken off; torch's batch
        counters and TensorFlow's training variables are passed over. An auxiliary classifier that only the
        file or only the model has is noted, and no error either way: what `predict` computes does not depend
        on it.

        The input convention of the layout's weights becomes the model's `preprocess` (its "resize" stays).
        CheckpointError, and no change at all, if the source cannot be read, a shape or type does not fit, or,
        when strict, a tensor is missing or unexpected; ValueError for a layout the model does not have.
        """
        places = self._places(layout)
        arrays, description = (as_arrays(source), {}) if isinstance(source, Mapping) else read_weights(source)
        with model_file.damaged("the file" if isinstance(source, Mapping) else source):
            own, arrays = model_file.with_fitted(description.get("preprocess"), arrays)
            check_config(own)
        report = layouts.load_weights(self, places, arrays, layout=layout, head=head, strict=strict)
        public = self.public_preprocess.get(layout, own)
        if public is not None:
            kept = {key: value for key, value in (self.preprocess or {}).items() if key == "resize"}
            self.preprocess = kept | copy.deepcopy(public)
        return report

    def export_weights(self, *, layout: str = "minidl") -> dict[str, np.ndarray]:
        """The weights as another library keeps them: name -> array, in its names, shapes and order.

        "timm" and "torchvision" get torch's batch counters as well, all 0, so that a strict load_state_dict
        takes the dict. `load_weights` with the same layout gives the same weights back, bit for bit.
        """
        return layouts.export_weights(self, self._places(layout), layout=layout)

    def _places(self, layout: str) -> list[layouts.Place]:
        return layouts.plan(
            self,
            layout,
            self.weight_names(layout),
            flattened=self.flattened,
            convolutional=self.convolutional.get(layout, ()),
        )
