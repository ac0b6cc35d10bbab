"""Public weights: the table fits the models, and downloads are checked; nothing leaves this machine."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest

import minidl_models
from minidl import nn
from minidl.errors import CheckpointError
from minidl_models import fetch_weights, pretrained_sources
from minidl_models.sources import Source

SOURCES = [source for sources in pretrained_sources().values() for source in sources]


def test_every_model_is_named_and_many_have_files() -> None:
    assert list(pretrained_sources()) == minidl_models.names()
    with_files = [name for name, sources in pretrained_sources().items() if sources]
    assert {"alexnet", "vgg16", "googlenet", "inception_v3", "inception_v4", "resnet50"} <= set(with_files)
    assert pretrained_sources()["plain20"] == []


# one file of each network and layout; one depth of VGG stands for the others, which are half a gigabyte each
FITTING = {
    (source.model, source.variant, source.layout): source
    for source in SOURCES
    if source.model not in ("vgg11", "vgg13", "vgg19")
}


@pytest.mark.parametrize("source", FITTING.values(), ids=[source.file for source in FITTING.values()])
def test_a_source_fits_its_network(source: Source) -> None:
    with nn.init.blank():
        model = minidl_models.create(source.model, **source.arguments)
    assert len(model.weight_names(source.layout)) > 0
    assert model.public_preprocess[source.layout] == source.preprocess


def test_checksums_are_those_in_the_names_and_files_are_told_apart() -> None:
    for source in SOURCES:
        assert urlparse(source.url).scheme == "https"
        if source.layout == "torchvision":
            assert source.file == source.url.rpartition("/")[2] == f"{source.file[:-13]}-{source.sha256}.pth"
        else:
            assert source.sha256 is None
    assert len({source.file for source in SOURCES}) == len(SOURCES)


def offered(web: Any, content: bytes, digest: str | None = None) -> Source:
    web.files["weights.pth"] = content
    sha256 = hashlib.sha256(content).hexdigest()[:8] if digest is None else digest
    return dataclasses.replace(SOURCES[0], url=f"{web.url}weights.pth", file="weights.pth", sha256=sha256)


def test_a_file_is_fetched_once(web: Any, tmp_path: Path) -> None:
    source = offered(web, b"weights")
    path = fetch_weights(source, tmp_path / "new")
    assert path == tmp_path / "new" / "weights.pth"
    assert path.read_bytes() == b"weights"
    del web.files["weights.pth"]
    assert fetch_weights(source, tmp_path / "new") == path
    assert [p.name for p in path.parent.iterdir()] == ["weights.pth"]


def test_the_folder_of_the_data_sets_is_the_default(
    web: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINIDL_DATA", str(tmp_path))
    assert fetch_weights(offered(web, b"weights")) == tmp_path / "weights" / "weights.pth"


def test_without_a_published_checksum_none_is_checked(web: Any, tmp_path: Path) -> None:
    source = dataclasses.replace(offered(web, b"weights"), sha256=None)
    assert fetch_weights(source, tmp_path).read_bytes() == b"weights"


def test_another_file_than_the_published_one_is_refused(web: Any, tmp_path: Path) -> None:
    source = offered(web, b"weights", digest="0" * 8)
    text = r"SHA-256 begins with 9[0-9a-f]{7}, the published file's with 00000000; delete it.*put it at"
    text = text.replace("9[0-9a-f]{7}", hashlib.sha256(b"weights").hexdigest()[:8])
    with pytest.raises(CheckpointError, match=text):
        fetch_weights(source, tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "weights.pth").write_bytes(b"weights")
    with pytest.raises(CheckpointError, match=text):
        fetch_weights(source, tmp_path)


def test_offline_the_way_by_hand_is_named(tmp_path: Path) -> None:
    source = dataclasses.replace(SOURCES[0], url="http://127.0.0.1:9/weights.pth", file="weights.pth")
    with pytest.raises(CheckpointError, match=r"weights.pth: the download failed") as caught:
        fetch_weights(source, tmp_path)
    assert f"fetch {source.url} and put it at {tmp_path / 'weights.pth'}" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_table_has_the_preprocessing_once() -> None:
    table = json.loads(minidl_models.sources.FILE.read_text(encoding="utf-8"))
    assert {row["input"] for row in table["files"]} == set(table["inputs"])
