"""The codebooks and errors of the quantization figures against the numbers of bitsandbytes."""

import numpy as np
import pytest

from reports.codebooks import CODEBOOKS, code_shares, gaussian, mean_absolute_error, nearest
from reports.figures.code_usage import entropy
from reports.figures.quantization_error import BITSANDBYTES, SEED

# bitsandbytes' NF4 table (csrc/kernels.cu).
NF4 = [
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
]


def test_nf4_formula_gives_the_published_table():
    """To the fp32 digits of the table: it was made with fp32 probabilities, so a few units in the seventh digit."""
    assert CODEBOOKS["NF4"] == pytest.approx(NF4, abs=5e-7)


def test_fp4_formula_gives_the_published_values():
    positive = [0.0, 0.005208333333, 1 / 6, 0.25, 1 / 3, 0.5, 2 / 3, 1.0]
    assert CODEBOOKS["FP4"][7:] == pytest.approx(positive, abs=1e-9)
    assert np.array_equal(CODEBOOKS["FP4"], -CODEBOOKS["FP4"][::-1])


@pytest.mark.parametrize("name", CODEBOOKS)
def test_nearest_is_nearest(name):
    book = CODEBOOKS[name]
    values = np.random.default_rng(7).uniform(-1, 1, 4096)
    chosen = np.abs(book[nearest(values, book)] - values)
    assert np.array_equal(chosen, np.abs(book[None, :] - values[:, None]).min(axis=1))


@pytest.mark.parametrize("name", BITSANDBYTES)
def test_mean_error_is_what_bitsandbytes_expects(name):
    """Within 0.5 %: 2^20 samples leave about 0.1 % of noise at large blocks, where one absmax serves 4096 samples."""
    samples = gaussian(SEED)
    for blocksize, expected in BITSANDBYTES[name].items():
        assert mean_absolute_error(samples, blocksize, CODEBOOKS[name]) == pytest.approx(expected, rel=5e-3)


def test_code_shares_of_nf4():
    """Per cent by code, from an independent count over bf16 normal weights in blocks of 64."""
    known = [1.86, 4.38, 5.86, 7.09, 8.08, 8.80, 9.23, 8.81, 8.10, 7.81, 7.34, 6.67, 5.80, 4.82, 3.63, 1.72]
    shares = code_shares(gaussian(SEED), 64, CODEBOOKS["NF4"])
    assert shares.sum() == pytest.approx(1.0)
    assert 100 * shares == pytest.approx(known, abs=0.1)


def test_entropy_of_even_use_is_all_bits():
    assert entropy(np.full(16, 1 / 16)) == pytest.approx(4.0)
    assert entropy(np.array([1.0, 0.0])) == 0.0
