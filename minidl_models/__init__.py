"""The classic convolutional networks, one file per paper, built on minidl's public names."""

from minidl_models.nin import nin
from minidl_models.registry import create, entry, names

__all__ = ["create", "entry", "names", "nin"]
