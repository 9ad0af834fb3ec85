from __future__ import annotations

import pytest
from scipy.stats import combine_pvalues

from bayling.multiplicity import fisher, holm

pytestmark = pytest.mark.unit


def test_many_tests_are_corrected_together() -> None:
    # Worked by hand: times 4, 3, 2, 1 from the smallest on, and never below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([]) == []


def test_independent_tests_are_taken_together_as_scipy_does() -> None:
    for values in ([0.04], [0.2, 0.03], [1.0, 0.5, 0.9, 0.01], [1e-8, 0.3]):
        expected = combine_pvalues(values, method="fisher").pvalue
        assert fisher(values) == pytest.approx(expected, rel=1e-9)
    assert fisher([]) == 1
