"""Writes minidl/data/digits.npz from scikit-learn's digits:  python tests/data/make_digits.py [FILE]

Prints the line that digits.py needs to check the file.
"""

import hashlib
import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

TARGET = Path(__file__).resolve().parents[2] / "minidl" / "data" / "digits.npz"


def main(target: Path) -> None:
    digits = load_digits()
    np.savez_compressed(target, images=digits.images.astype(np.uint8), labels=digits.target.astype(np.uint8))
    data = target.read_bytes()
    print(f'_FILE = File("{target.name}", {len(data):_}, "{hashlib.md5(data).hexdigest()}")')


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET)
