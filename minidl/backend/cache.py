"""Where compiled kernels are kept between processes."""

import os
from pathlib import Path


def cache_folder(*parts: str) -> Path:
    """A folder in $MINIDL_CACHE, or else in the user's cache folder."""
    top = os.environ.get("MINIDL_CACHE")
    if not top:
        import platformdirs  # here, so that a machine with $MINIDL_CACHE need not have it

        top = platformdirs.user_cache_dir("minidl", appauthor=False)
    return Path(top, *parts)
