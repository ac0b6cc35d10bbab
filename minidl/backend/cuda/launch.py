"""Finds the CUDA sources: inside the package once installed, at the top of a checkout.

The package comes first: an installed minidl must use the sources it was built with, whatever lies around it.
"""

from importlib.resources import files
from pathlib import Path

from minidl.errors import DeviceError


def kernel_folder() -> Path:
    """The folder that holds the .cu and .cuh files.  DeviceError where there is none."""
    packaged = Path(str(files("minidl"))) / "kernels"
    checkout = Path(__file__).resolve().parents[3] / "kernels"
    for folder in (packaged, checkout):
        if folder.is_dir():
            return folder
    raise DeviceError(
        f"the CUDA sources are missing: neither {packaged} nor {checkout} is a folder; reinstall minidl"
    )


def kernel_path(name: str) -> Path:
    """The path of one source, such as "port.cuh".  DeviceError that lists the names for an unknown one."""
    folder = kernel_folder()
    path = folder / name
    if not path.is_file():
        there = ", ".join(sorted(file.name for file in folder.glob("*.cu*"))) or "none"
        raise DeviceError(f"there is no kernel source {name!r} in {folder}; there: {there}")
    return path
