"""The matrices of Winograd's minimal filtering along one axis, which winograd.py is made of.

n numbers d and a filter w of r taps give m = n + 1 - r outputs, y[i] = sum over a of d[i + a] w[a], by n
multiplications:

    y = A^T ((G w) * (B^T d))

A polynomial whose coefficients are w and one whose coefficients are outputs are known by their values at n -
1 points and at infinity, where the value is the leading coefficient; multiplying values multiplies the
polynomials. Read backwards (that is the transposition of it all), the same products are a correlation.

Winograd 1980, Arithmetic Complexity of Computations; Lavin and Gray 2015, arXiv:1509.09308. The points are
small and come with their negatives and inverses, which keeps rounding low (Barabasz et al. 2020,
arXiv:1803.10986).
"""

import numpy as np

_FIVE = (0.0, 1.0, -1.0, 2.0, -2.0)
_SEVEN = (*_FIVE, 0.5, -0.5)
# taps: the points besides infinity. One more would save multiplications, but enlarge the rounding, and for 3
# taps the transforms more than that.
_POINTS = {3: _FIVE, 5: _SEVEN, 7: (*_SEVEN, 4.0, -0.25)}


def tile(size: int) -> int:
    """How many numbers along an axis give outputs at a time, for a window of `size` taps."""
    return 1 if size == 1 else len(_POINTS[size]) + 1


def filter_matrix(size: int) -> np.ndarray:
    """G (tile, size): row i evaluates a polynomial of `size` coefficients at point i, divided by the product
    of the point's distances to the others; the last row is its leading coefficient."""
    if size == 1:
        return np.ones((1, 1))
    points = np.array(_POINTS[size])
    gaps = points[:, None] - points + np.eye(len(points))
    rows = points[:, None] ** np.arange(size) / gaps.prod(1)[:, None]
    return np.vstack([rows, np.eye(size)[-1:]])


def output_matrix(size: int) -> np.ndarray:
    """A (tile, outputs): row i evaluates a polynomial of as many coefficients as a tile has outputs."""
    if size == 1:
        return np.ones((1, 1))
    outputs = tile(size) + 1 - size
    return np.vstack([np.array(_POINTS[size])[:, None] ** np.arange(outputs), np.eye(outputs)[-1:]])


def image_matrix(size: int) -> np.ndarray:
    """B^T (tile, tile): row i is the polynomial with zeros at all points but the i-th; the last one has them
    all."""
    if size == 1:
        return np.ones((1, 1))
    points = np.array(_POINTS[size])
    rows = [
        np.append(np.polynomial.polynomial.polyfromroots(np.delete(points, i)), 0) for i in range(len(points))
    ]
    return np.vstack([*rows, np.polynomial.polynomial.polyfromroots(points)])
