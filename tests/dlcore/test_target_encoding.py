import numpy as np

from dlcore.target_encoding import encode_categories, fit_means


def explained(encoded: np.ndarray, y: np.ndarray) -> float:
    """R2 of the best straight line."""
    return float(np.corrcoef(encoded, y)[0, 1] ** 2) if encoded.std() > 0 else 0.0


def test_a_random_column_of_many_categories_explains_nothing_not_even_of_train() -> None:
    rng = np.random.default_rng(0)
    n = 4000
    codes, y = rng.integers(0, 1000, n), rng.normal(size=(n, 1))
    naive = np.array([y[codes == code].sum() / max(1, (codes == code).sum()) for code in range(1000)])[codes]
    assert explained(naive, y[:, 0]) > 0.2  # what leaking would look like
    assert explained(encode_categories(codes, y)[:, 0], y[:, 0]) < 0.005
    assert np.abs(fit_means(codes, y, 1000)).max() < 0.3, "what says nothing stays small"


def test_categories_that_matter_are_told_apart_in_train_and_later() -> None:
    rng = np.random.default_rng(0)
    n = 4000
    codes, effect = rng.integers(0, 200, n), rng.normal(size=200)
    y = effect[codes][:, np.newaxis] + 0.3 * rng.normal(size=(n, 1))
    means = fit_means(codes, y, 200)[:, 0]
    assert explained(means, effect) > 0.98
    assert explained(encode_categories(codes, y)[:, 0], y[:, 0]) > 0.85


def test_a_row_is_not_told_its_own_target() -> None:
    rng = np.random.default_rng(0)
    codes, y = rng.integers(0, 50, 300), rng.normal(size=(300, 1)) + rng.normal(size=50)[rng.integers(0, 50, 300), None]
    before = encode_categories(codes, y)
    # Two rows exchange their targets: mean, spread, and so the shrinking of the others stay nearly the same.
    row = int(np.flatnonzero(codes == 7)[0])
    changed = y.copy()
    changed[row] += 1e-6
    assert abs(encode_categories(codes, changed)[row] - before[row]) < 1e-7 / 3


def test_a_category_without_other_rows_has_the_mean_of_all() -> None:
    codes = np.array([0, 1, 2, 2, 2, 2, 3, 3, 3, 3])
    y = np.arange(10.0)[:, np.newaxis]
    assert encode_categories(codes, y)[:2, 0].tolist() == [0, 0]
    assert fit_means(codes, y, 6)[4:, 0].tolist() == [0, 0]


def test_one_category_alone_and_all_rows_different_are_encoded_by_nothing_but_finite_numbers() -> None:
    for codes in (np.zeros(9, dtype=np.int64), np.arange(9)):
        y = np.arange(9.0)[:, np.newaxis]
        assert np.isfinite(encode_categories(codes, y)).all() and np.isfinite(fit_means(codes, y, 9)).all()


def test_several_targets_are_encoded_each_by_itself() -> None:
    rng = np.random.default_rng(0)
    codes, y = rng.integers(0, 20, 400), rng.normal(size=(400, 2))
    both = fit_means(codes, y, 20)
    for i in range(2):
        np.testing.assert_allclose(both[:, i], fit_means(codes, y[:, i : i + 1], 20)[:, 0], rtol=1e-12)
