"""Where each data set comes from, and the size and MD5 of every official file: the table behind every check.

A data set that is kept on disk is a folder of files below the root. They are fetched one by one, or all in
one archive. The MD5s of the CIFAR archives are those on their author's page; those of the MNIST and SVHN
files are in wide use (torchvision lists the same). Nobody is known to publish those of the two files in the
CIFAR-100 archive, so they have none here: they are checked with the archive, when it is downloaded, and later
by their size alone.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class File:
    """A file as its authors published it.  md5: None if no checksum of it is published"""

    name: str
    size: int  # bytes
    md5: str | None = None


@dataclass(frozen=True)
class Source:
    """A folder of files and the address they are fetched from: `url` + file name, or `url` + archive name."""

    name: str
    folder: str
    url: str
    files: tuple[File, ...]
    archive: File | None = None

    @property
    def without_checksum(self) -> list[str]:
        """The names of the files that are checked by their size alone."""
        return [file.name for file in self.files if file.md5 is None]


SOURCES = {
    "cifar10": Source(
        name="cifar10",
        folder="cifar-10-batches-bin",
        url="https://www.cs.toronto.edu/~kriz/",
        files=(  # five training batches, then the test batch
            File("data_batch_1.bin", 30_730_000, "5dd7e06a14cb22eb9f671a540d1b7c25"),
            File("data_batch_2.bin", 30_730_000, "5ea93a67294ea407fff1d09f752e9692"),
            File("data_batch_3.bin", 30_730_000, "942cd6a4bcdd0dd3c604fbe906cb4421"),
            File("data_batch_4.bin", 30_730_000, "ae636b3ba5c66a11e91e8cb52e771fcb"),
            File("data_batch_5.bin", 30_730_000, "53f37980c15c3d472c316c40844f3f0d"),
            File("test_batch.bin", 30_730_000, "803d5f7f4d78ea53de84dbe85f74fb6d"),
        ),
        archive=File("cifar-10-binary.tar.gz", 170_052_171, "c32a1d4ab5d03f1284b67883e8d87530"),
    ),
    "cifar100": Source(
        name="cifar100",
        folder="cifar-100-binary",
        url="https://www.cs.toronto.edu/~kriz/",
        files=(File("train.bin", 50_000 * 3_074), File("test.bin", 10_000 * 3_074)),  # records of 3,074 bytes
        archive=File("cifar-100-binary.tar.gz", 168_513_733, "03b5dce01913d631647c71ecec9e9cb8"),
    ),
    "mnist": Source(
        name="mnist",
        folder="mnist",
        url="https://ossci-datasets.s3.amazonaws.com/mnist/",
        files=(
            File("train-images-idx3-ubyte.gz", 9_912_422, "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
            File("train-labels-idx1-ubyte.gz", 28_881, "d53e105ee54ea40749a09fcbcd1e9432"),
            File("t10k-images-idx3-ubyte.gz", 1_648_877, "9fb629c4189551a2d022fa330f9573f3"),
            File("t10k-labels-idx1-ubyte.gz", 4_542, "ec29112dd5afa0611ce80d1b7f02629c"),
        ),
    ),
    "svhn": Source(
        name="svhn",
        folder="svhn",
        url="http://ufldl.stanford.edu/housenumbers/",
        files=(
            File("train_32x32.mat", 182_040_794, "e26dedcc434d2e4c54c9b2d4a06d8373"),
            File("test_32x32.mat", 64_275_384, "eb5a983be6a315427106f1b164d9cef3"),
        ),
    ),
}
SVHN_EXTRA = File(
    "extra_32x32.mat", 1_329_278_602, "a93ce644f1a588dc4d68dda5feec44a7"
)  # a third one, optional
