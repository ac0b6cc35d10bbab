"""How a case is computed: the plan of its convolutions, and the device."""

from hypothesis import strategies as st

from minidl import backend
from minidl.backend import plans as registry
from minidl.errors import DeviceError

DEVICES = ("cpu", "cudasim", "cuda")


def plans() -> st.SearchStrategy[str]:
    """A name for `minidl.force_plan`: "auto" or one of the algorithms."""
    return st.sampled_from(registry.NAMES)


def devices() -> st.SearchStrategy[str]:
    """A device that can be used here; shrinks to "cpu"."""
    return st.sampled_from(usable_devices())


def usable_devices() -> list[str]:
    """The names of the devices that can be computed on here."""
    usable = []
    for name in DEVICES:
        try:
            usable.append(backend.check_device(name))
        except DeviceError:
            continue
    return usable
