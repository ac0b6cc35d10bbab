"""Images on the GPU as a model takes them: kernels/image.cu."""

from typing import Any

import numpy as np

from minidl.backend import Array
from minidl.backend.cuda.device import runtime_of
from minidl.backend.cuda.elementwise import instance, instances
from minidl.backend.cuda.launch import Strided, blocks_for, launch
from minidl.backend.cuda.places import places

_STANDARDISE = instances(
    "image.cu", "standardise<{}>", {np.dtype(np.uint8): "unsigned char", np.dtype(np.float32): "float"}
)


def standardise(images: Array, mean: Any = 0.0, std: Any = 1.0, factor: float = 1.0) -> Array:
    """factor * (x / 255 - mean) / std, per channel.  (N, H, W, C) uint8 or float32 -> float32

    As one multiply-add. mean and std are numbers, or C of them on the host. `images` may have any strides: to
    reverse the channels give `images[..., ::-1]`.
    """
    runtime, c = runtime_of(images), images.shape[-1]
    found = instance(_STANDARDISE, images.dtype, "preprocess")
    mean, std = np.asarray(mean, np.float64), np.asarray(std, np.float64)
    scale, shift = (
        runtime.upload(np.broadcast_to(values, c).astype(np.float32))
        for values in (factor / (255 * std), -factor * mean / std)
    )
    y = runtime.empty(images.shape, np.float32)
    if y.size:
        arguments = Strided(images), scale, shift, y, places(images.shape, images), c, y.size
        launch(found, runtime, blocks_for(y.size), *arguments)
    return y
