"""Public weights: which file holds those of a model, where it is, and how to fetch it.

The table is sources.json: files of torchvision, whose names carry the first digits of their SHA-256, and of
timm's account on the Hugging Face Hub, which publishes no checksum of that kind. Weights that only TensorFlow
or Caffe can read are not listed.
"""

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minidl.data.fetch import resolve_root
from minidl.errors import CheckpointError
from minidl_models.registry import entry, names

FILE = Path(__file__).with_name("sources.json")


@dataclass(frozen=True)
class Source:
    """A file of public weights.

    model, variant  the network, as in the zoo's register
    layout          for `load_weights`
    url, file       where it is, and what it is called here
    sha256          how its SHA-256 begins, or None if none is published
    preprocess      the input these weights expect, as `Model.preprocess`
    """

    model: str
    variant: str
    layout: str
    url: str
    file: str
    sha256: str | None
    preprocess: dict[str, Any]

    @property
    def arguments(self) -> dict[str, Any]:
        """What `create` takes to build the network that these weights fit."""
        return dict(entry(self.model).variants[self.variant])


def pretrained_sources() -> dict[str, list[Source]]:
    """Model -> its files of public weights, for all models of the zoo; many have none."""
    table = json.loads(FILE.read_text(encoding="utf-8"))
    sources: dict[str, list[Source]] = {name: [] for name in names()}
    for row in table["files"]:
        preprocess = table["inputs"][row.pop("input")]
        sources[row["model"]].append(Source(preprocess=preprocess, **row))
    return sources


def fetch_weights(source: Source, folder: str | os.PathLike[str] | None = None) -> Path:
    """The file of `source` on disk, downloaded unless it is there.

        source = pretrained_sources()["resnet18"][0]
        model = create(source.model, **source.arguments)
        model.load_weights(fetch_weights(source), layout=source.layout)

    folder  else "weights" in the folder of the data sets: $MINIDL_DATA, or the user's cache

    CheckpointError when the download fails or the file is not the published one, with the way to get it by
    hand.
    """
    place = Path(folder).expanduser() if folder is not None else resolve_root() / "weights"
    path = place / source.file
    if path.exists():
        _check(path, source, path)
        return path
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=place) as scratch:
            found = _download(source, scratch)
            _check(found, source, path)
            os.replace(found, path)
    except (OSError, ValueError) as error:  # offline: OSError; a page in place of the file: ValueError
        raise CheckpointError(
            f"{source.file}: the download failed ({error}). {_by_hand(source, path)}"
        ) from error
    return path


def _download(source: Source, folder: str) -> Path:
    import pooch

    downloader = pooch.HTTPDownloader(progressbar=True)
    return Path(
        pooch.retrieve(source.url, known_hash=None, fname=source.file, path=folder, downloader=downloader)
    )


def _check(found: Path, source: Source, path: Path) -> None:
    """CheckpointError unless the SHA-256 begins as published, where it is."""
    if source.sha256 is None:
        return
    with open(found, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(source.sha256):
        found_digits = digest[: len(source.sha256)]
        raise CheckpointError(
            f"{source.file}: its SHA-256 begins with {found_digits}, the published file's with "
            f"{source.sha256}; delete it. {_by_hand(source, path)}"
        )


def _by_hand(source: Source, path: Path) -> str:
    return f"To do it by hand: fetch {source.url} and put it at {path}"
