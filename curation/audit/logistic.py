"""Logistic regression on signed features, compiled: w that minimises Σ log(1 + exp(−x·w)) + ridge/2 |w|².

Stochastic dual coordinate ascent (Shalev-Shwartz & Zhang 2013; the logistic step of Yu, Huang & Lin 2011): one pair
at a time in a fixed order, so that a fit is the same on every machine and in every thread.
"""

import numpy as np
from numba import njit

EPOCHS = 10
NEAR = 3e-3  # a mean change of the dual variables below which nothing moves


@njit(cache=True, nogil=True)
def fit(start, columns, values, rows, order, ridge, alpha, w):
    """Fit to `rows` of a CSR matrix, in `order` (indices into rows); w (columns,) float64, zeros at first; `alpha`
    (rows,) holds the dual variables: from another fit to the same rows it is a good start, else a small number."""
    squares = np.zeros(len(rows))
    for r in range(len(rows)):
        for e in range(start[rows[r]], start[rows[r] + 1]):
            squares[r] += values[e] * values[e]
            w[columns[e]] += alpha[r] * values[e] / ridge
    for _ in range(EPOCHS):
        moved = 0.0
        for k in range(len(order)):
            r = order[k]
            row = rows[r]
            if squares[r] == 0:
                continue
            margin = 0.0
            for e in range(start[row], start[row + 1]):
                margin += w[columns[e]] * values[e]
            change = step(alpha[r], margin, squares[r] / ridge)
            if abs(change) > 1e-9:
                moved += abs(change)
                alpha[r] += change
                scaled = change / ridge
                for e in range(start[row], start[row + 1]):
                    w[columns[e]] += scaled * values[e]
        if moved < NEAR * len(rows):
            break


@njit(cache=True, nogil=True)
def step(alpha, margin, curvature):
    """The change of one dual variable in (0, 1): Newton's method, kept inside, on
    log(a/(1 − a)) + margin + curvature (a − alpha) = 0."""
    a = alpha
    low, high = 1e-12, 1 - 1e-12
    for _ in range(12):
        value = np.log(a / (1 - a)) + margin + curvature * (a - alpha)
        if value > 0:
            high = a
        else:
            low = a
        new = a - value / (1 / (a * (1 - a)) + curvature)
        if new <= low or new >= high:
            new = (low + high) / 2
        if abs(new - a) < 1e-7:
            a = new
            break
        a = new
    return a - alpha


@njit(cache=True, nogil=True)
def margins(start, columns, values, rows, w, out):
    """out[row] = x·w for each of `rows`."""
    for row in rows:
        total = 0.0
        for e in range(start[row], start[row + 1]):
            total += w[columns[e]] * values[e]
        out[row] = total
