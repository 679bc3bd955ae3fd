"""Measures of probabilities: calibration, thresholds and intervals. Pure functions of arrays and a seed."""

import numpy as np


def best_threshold(y: np.ndarray, p: np.ndarray) -> float:
    """The threshold with the best F1, to four decimals; midway between two probabilities, so that no row lies on it."""
    steps = np.unique(p.astype(np.float64))
    middles = (steps[1:] + steps[:-1]) / 2
    f1 = [2 * (y[p >= t].sum()) / ((p >= t).sum() + y.sum()) for t in middles]
    return round(float(middles[int(np.argmax(f1))]), 4)


def calibration_error(confidence: np.ndarray, hit: np.ndarray) -> float:
    """Expected calibration error over ten bins of equal size (Naeini et al. 2015, with quantile bins)."""
    bins = np.array_split(np.argsort(confidence, kind="stable"), 10)
    return sum(len(b) * abs(confidence[b].mean() - hit[b].mean()) for b in bins) / len(hit)


def reliability(y: np.ndarray, p: np.ndarray) -> list[dict]:
    """Mean probability and observed rate in fixed ranges of probability."""
    edges = [0.0, 0.01, 0.05, 0.2, 0.5, 0.8, 1.0]
    table = []
    for low, high in zip(edges[:-1], edges[1:]):
        inside = (p >= low) & ((p < high) | (high == 1.0))
        mean, seen = (p[inside].mean(), y[inside].mean()) if inside.any() else (None, None)
        table.append({"from": low, "to": high, "rows": int(inside.sum()), "mean_probability": mean, "observed": seen})
    return table


def bootstrap(y: np.ndarray, p: np.ndarray, metric, seed: int) -> list[float]:
    """The 2.5 % and 97.5 % points of a metric over 1,000 resamples within each class."""
    rng, good, bad = np.random.default_rng(seed), np.flatnonzero(y == 0), np.flatnonzero(y == 1)
    values = []
    for _ in range(1000):
        drawn = np.concatenate([rng.choice(good, len(good)), rng.choice(bad, len(bad))])
        values.append(metric(y[drawn], p[drawn]))
    return [float(v) for v in np.percentile(values, [2.5, 97.5])]


def wilson(hits: int, n: int) -> list[float]:
    """Wilson's 95 % score interval of a proportion (Wilson 1927)."""
    z, share = 1.959964, hits / n
    middle, half = share + z * z / (2 * n), z * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return [(middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)]


def normalized(p: np.ndarray) -> np.ndarray:
    """Rows that sum to one in float64: float32 rows miss it by a rounding, and log_loss warns."""
    p = p.astype(np.float64)
    return p / p.sum(axis=1, keepdims=True)


def rounded(value):
    """Every float in a nest of dicts and lists, to four decimals."""
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return value if value is None or isinstance(value, int) else round(float(value), 4)
