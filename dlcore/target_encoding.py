"""The mean target of each category, drawn towards the mean of all, and without a row's own target for training rows.

How far a mean is drawn is estimated from train itself: with variance w inside categories and b between them, a category
of n rows keeps the share n / (n + w / b) of its distance from the mean of all (one-way random effects; Micci-Barreca,
"A Preprocessing Scheme for High-Cardinality Categorical Attributes", 2001). A column that says nothing has b near 0,
and becomes nearly constant. All in standard deviations of the target, so that such a column stays small.
"""

import numpy as np
from numpy.typing import NDArray

from dlcore.scaling import FloatArray, fit_standard

N_FOLDS = 5
OWN_CATEGORY = 2
"""Training rows from which a category has a mean of its own: fewer could not be told from the row itself."""
_SEED = 0


def fit_means(codes: NDArray[np.int64], y: FloatArray, n_categories: int) -> FloatArray:
    """Means for new rows: categories (N,) and targets (N, T) of train -> (n_categories, T)."""
    z = _standardised(y)
    return _shrunk(*_sums(codes, z, n_categories), _ratio(codes, z, n_categories))


def encode_categories(codes: NDArray[np.int64], y: FloatArray) -> FloatArray:
    """Means for the training rows, each from the rows of the other folds: (N,), (N, T) -> (N, T).

    Only the sums leave a fold out. The mean of all rows and the share are single numbers, the same for every row: taken
    from four fifths of the rows they would differ from fold to fold, and so tell a row's fold and with it its target.
    """
    z = _standardised(y)
    n_categories = int(codes.max()) + 1
    ratio = _ratio(codes, z, n_categories)
    counts, sums = _sums(codes, z, n_categories)
    has_own = counts >= OWN_CATEGORY
    encoded = np.empty_like(z)
    fold_of = np.random.default_rng(_SEED).permutation(len(codes)) % N_FOLDS
    for fold in range(N_FOLDS):
        own = fold_of == fold
        fold_counts, fold_sums = _sums(codes[own], z[own], n_categories)
        means = _shrunk((counts - fold_counts) * has_own, (sums - fold_sums) * has_own[:, np.newaxis], ratio)
        encoded[own] = means[codes[own]]
    return encoded


def _standardised(y: FloatArray) -> FloatArray:
    """Each target (N, T) with mean 0 and standard deviation 1."""
    return np.stack([fit_standard(column).apply(column) for column in y.T], axis=1)


def _sums(codes: NDArray[np.int64], z: FloatArray, n_categories: int) -> tuple[FloatArray, FloatArray]:
    """Rows (n_categories,) and sum of targets (n_categories, T) of each category."""
    counts = np.bincount(codes, minlength=n_categories).astype(np.float64)
    return counts, np.stack([np.bincount(codes, column, n_categories) for column in z.T], axis=1)


def _shrunk(counts: FloatArray, sums: FloatArray, ratio: FloatArray) -> FloatArray:
    """Sums / (counts + ratio): (n_categories, T); 0, the mean of all, for a category without rows."""
    weights = counts[:, np.newaxis] + ratio
    return np.divide(sums, weights, out=np.zeros_like(sums), where=counts[:, np.newaxis] > 0)


def _ratio(codes: NDArray[np.int64], z: FloatArray, n_categories: int) -> FloatArray:
    """Variance inside categories over that between them, (T,); large where nothing lies between them.

    The analysis of variance for unequal groups: Searle, Casella and McCulloch, Variance Components, 1992, section 3.6.
    """
    counts, sums = _sums(codes, z, n_categories)
    present = counts > 0
    counts, sums = counts[present], sums[present]
    n_rows, n_groups = len(codes), len(counts)
    most = np.full(z.shape[1], float(n_rows))
    if n_groups in (1, n_rows):
        return most  # nothing to compare, or nothing to compare it with
    between_squares = (sums**2 / counts[:, np.newaxis]).sum(0)  # the mean of all is 0
    within = ((z**2).sum(0) - between_squares) / (n_rows - n_groups)
    spread = n_rows - (counts**2).sum() / n_rows
    between = (between_squares - (n_groups - 1) * within) / spread
    ratio: FloatArray = np.divide(within, between, out=most, where=between > within / n_rows)
    return ratio
