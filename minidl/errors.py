"""The errors minidl raises for a user's mistake.

Each is also the built-in error a caller would expect (a wrong shape is a ValueError), so code that knows
nothing of minidl still catches them. A text names the operation, the argument, both shapes or values, and the
cure if there is one.
"""


class ShapeError(ValueError):
    """An array has the wrong number of axes, or an axis of the wrong length."""


class DTypeError(TypeError):
    """An array has the wrong data type, or two arrays that must agree differ in theirs."""


class DeviceError(RuntimeError):
    """A device does not exist or cannot be used here, or two arrays live on different ones."""


class DataError(ValueError):
    """A data set is missing, damaged, or does not fit what is asked of it."""


class CheckpointError(ValueError):
    """A weights file or a checkpoint is missing, damaged, or belongs to something else."""
