"""Data sets and the loader that feeds them to training.

Every data set is a function with the same two arguments, `root=None` and `download=True`, that returns a
`Dataset`: class names and two splits of images (N, H, W, C), already checked and held in memory. Those of
`image_folder(path)` stay in their files. Importing this package loads numpy alone; Pillow, pooch and
platformdirs are imported by the functions that need them.
"""

from minidl.data import transforms
from minidl.data.cifar import cifar10, cifar100
from minidl.data.dataset import Dataset, Split
from minidl.data.digits import digits
from minidl.data.folder import ImageFiles, image_folder
from minidl.data.loader import Loader
from minidl.data.mnist import mnist
from minidl.data.registry import download, load, names, verify
from minidl.data.svhn import svhn
from minidl.data.synthetic import synthetic

__all__ = [
    "Dataset",
    "ImageFiles",
    "Loader",
    "Split",
    "cifar10",
    "cifar100",
    "digits",
    "download",
    "image_folder",
    "load",
    "mnist",
    "names",
    "svhn",
    "synthetic",
    "transforms",
    "verify",
]
