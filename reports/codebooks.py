"""The 4-bit codebooks from their formulas, and quantization with them: independent of the C++ code on purpose."""

from functools import cache
from statistics import NormalDist

import numpy as np

NF4_OFFSET = 0.9677083  # the outermost quantile's probability, a constant of the QLoRA paper's code


def nf4() -> np.ndarray:
    """The 16 NF4 values in ascending order, which is the order of the codes.

    Quantiles of N(0, 1) at 8 evenly spaced probabilities below zero and 9 above, each side ending at NF4_OFFSET,
    divided by the largest (Dettmers et al., QLoRA, 2023, appendix E; bitsandbytes' create_normal_map).
    """
    quantile = NormalDist().inv_cdf
    upper = [quantile(p) for p in np.linspace(NF4_OFFSET, 0.5, 9)[:-1]]
    lower = [-quantile(p) for p in np.linspace(NF4_OFFSET, 0.5, 8)[:-1]]
    values = np.array(sorted([*lower, 0.0, *upper]))
    return values / values.max()


def fp4() -> np.ndarray:
    """The 15 distinct FP4 values in ascending order (both signs of zero are one value).

    A sign and 0, 1/16, 2, 3, 4, 6, 8, 12, divided by 12 (bitsandbytes' create_fp4_map).
    """
    positive = np.array([0.0625, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0]) / 12.0
    return np.concatenate([-positive[::-1], [0.0], positive])


CODEBOOKS = {"NF4": nf4(), "FP4": fp4()}


def nearest(normalized: np.ndarray, codebook: np.ndarray) -> np.ndarray:
    """The index of the nearest value of an ascending codebook; a tie goes to the lower one."""
    return np.searchsorted((codebook[1:] + codebook[:-1]) / 2.0, normalized, side="left")


def normalized_blocks(values: np.ndarray, blocksize: int) -> tuple[np.ndarray, np.ndarray]:
    """`values` (a multiple of blocksize, no block all zero) as blocks divided by their absmax [blocks, blocksize];
    absmax [blocks, 1]."""
    blocks = values.reshape(-1, blocksize)
    absmax = np.abs(blocks).max(axis=1, keepdims=True)
    return blocks / absmax, absmax


def mean_absolute_error(values: np.ndarray, blocksize: int, codebook: np.ndarray) -> float:
    """Mean |x - dequantize(quantize(x))| in the units of x, absmax kept exactly."""
    normalized, absmax = normalized_blocks(values, blocksize)
    error = np.abs(codebook[nearest(normalized, codebook)] - normalized) * absmax
    return float(error.mean(dtype=np.float64))


def code_shares(values: np.ndarray, blocksize: int, codebook: np.ndarray) -> np.ndarray:
    """The share of elements that get each value of the codebook; sums to 1."""
    normalized, _ = normalized_blocks(values, blocksize)
    return np.bincount(nearest(normalized, codebook).ravel(), minlength=len(codebook)) / normalized.size


@cache
def gaussian(seed: int, count: int = 1 << 20) -> np.ndarray:
    """Samples of N(0, 1) in fp32, the same for the same seed; read-only."""
    samples = np.random.default_rng(seed).standard_normal(count, dtype=np.float32)
    samples.flags.writeable = False
    return samples
