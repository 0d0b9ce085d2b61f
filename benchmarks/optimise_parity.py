"""Find the coefficients of the systematic code's parity that ``fcdcc.coding`` ships.

    python benchmarks/optimise_parity.py 20,16 12,5x2 20,4c4 40,32 --out coding/fcdcc/coding/data
    python benchmarks/optimise_parity.py --usual --out coding/fcdcc/coding/data

A size is ``n,δ`` or ``n,δ_q x δ_r`` for quaternion parity, and ``n,δ_a c δ_b`` with δ_a ≥ δ_b for
complex parity, which codes both sides. What is minimised is the worst condition number over the
losses of γ shares, smoothed: the logarithm of the p-norm of the condition numbers, p rising.
The gradient is analytic, from the extreme eigenvectors of each loss. Where the losses can be
counted all of them take part, then the worst of them, by L-BFGS from several starts. Up to a
thousand million the parity is made of circulants and improved by small steps: first against a
pool of bad losses that a search keeps filling, then against all bad losses, by enumeration.
Beyond that a search finds new bad losses as fast as old ones are mended, and the best of some
seeds is taken.

Coefficients are rounded to multiples of 2⁻¹⁶ and measured after that. A file is replaced only
by one with a smaller worst condition number. The result for a size depends on ``--seed`` and
``--effort`` alone, up to the rounding of the linear algebra library. Needs SciPy, which the
development environment has by way of scikit-learn.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from parity_scan import every_bad_loss
from scipy.optimize import minimize

from fcdcc.coding.conditioning import worst_found
from fcdcc.coding.parity_complex import ComplexTable, random_complex_table, rounded_complex
from fcdcc.coding.parity_quaternion import ParityTable, seeded_table
from fcdcc.coding.parity_tables import UNIT, rounded
from fcdcc.coding.quaternions import complex_form
from fcdcc.coding.spectrum import (
    Losses,
    Spectrum,
    by_missing,
    contiguous_losses,
    every_loss,
    expand,
    pencils,
)

Vector = NDArray[np.float64]
ComplexArray = NDArray[np.complex128]
COUNTABLE = 60_000
TRACKABLE = 10**9

USUAL = (
    "2,1 3,2 3,1 4,3 4,2 5,4 5,3 5,2 6,5 6,4 6,3 6,2 7,6 7,5 7,4 8,7 8,6 8,5 8,4 9,8 9,7 9,6 "
    "10,9 10,8 10,7 10,6 11,8 12,11 12,10 12,9 12,8 16,15 16,14 16,13 16,12 18,16 20,19 20,18 "
    "20,17 20,16 24,22 24,20 31,28 32,30 36,32 "
    "4,1x2 5,2x2 6,2x2 6,1x4 8,3x2 8,2x2 10,4x2 12,5x2 12,4x2 12,2x4 16,7x2 16,6x2 16,3x4 18,8x2 "
    "18,4x4 20,8x2 20,4x4 20,2x8 24,10x2 24,5x4 40,32 48,32 60,48 "
    "4,2c1 5,2c1 6,2c2 7,2c2 8,2c2 8,3c2 9,3c2 10,3c2 10,4c2 12,4c2 12,5c2 14,6c2 14,4c3 16,7c2 "
    "16,6c2 16,4c3 18,4c4 20,4c4"
)


class _CodeSize:
    """What the sizes of both kinds of parity have in common: γ parity shares, and δ others."""

    gamma: int
    delta: int

    @property
    def n(self) -> int:
        """The number of shares."""
        return self.gamma + self.delta

    @property
    def losses(self) -> int:
        """The number of losses of γ shares."""
        return math.comb(self.n, self.gamma)


@dataclass(frozen=True)
class Size(_CodeSize):
    """γ parity shares for δ_q × δ_r parts, and how a vector holds the coefficients."""

    gamma: int
    delta_q: int
    delta_r: int

    @property
    def cyclic(self) -> bool:
        """Whether the parity consists of circulants, so that a loss stands for γ of them."""
        many = COUNTABLE < self.losses <= TRACKABLE
        return many and self.delta_r == 1 and self.delta_q % self.gamma == 0

    @classmethod
    def parse(cls, text: str) -> Size:
        """Read ``n,δ`` or ``n,δ_q x δ_r``."""
        n, _, parts = text.partition(",")
        delta_q, _, delta_r = parts.partition("x")
        q, r = int(delta_q), int(delta_r or 1)
        return cls(int(n) - q * r, q, r)

    @property
    def delta(self) -> int:
        """The recovery threshold."""
        return self.delta_q * self.delta_r

    def split(self, x: Vector) -> tuple[Vector, Vector]:
        """Return the quaternions (γ, δ_q, 4) and the reals (γ, δ_r)."""
        if self.cyclic:
            return x.reshape(-1, self.gamma, 4)[:, self._shifts].transpose(1, 0, 2, 3).reshape(
                self.gamma, self.delta_q, 4
            ), np.ones((self.gamma, 1))
        cut = self.gamma * self.delta_q * 4
        quaternions = x[:cut].reshape(self.gamma, self.delta_q, 4)
        if self.delta_r == 1:
            return quaternions, np.ones((self.gamma, 1))
        return quaternions, x[cut:].reshape(self.gamma, self.delta_r)

    def join(self, quaternions: Vector, reals: Vector) -> Vector:
        """Return the vector that :meth:`split` splits."""
        if self.cyclic:
            blocks = quaternions.reshape(self.gamma, -1, self.gamma, 4)
            base = np.zeros((blocks.shape[1], self.gamma, 4))
            for row, shift in enumerate(self._shifts):
                base[:, shift] += blocks[row]
            return base.ravel()
        if self.delta_r == 1:
            return quaternions.ravel()
        return np.concatenate([quaternions.ravel(), reals.ravel()])

    @property
    def block(self) -> int:
        """Rows of a share in the complex form."""
        return 2

    def systems(self, x: Vector) -> tuple[ComplexArray, ...]:
        """Return the parity of every complex system, here of one."""
        return (self.parity(x),)

    def pull_back_all(self, x: Vector, gradients: Sequence[ComplexArray]) -> Vector:
        """Return the gradient in x of what has these gradients in the systems."""
        return self.pull_back(x, gradients[0])

    def parity(self, x: Vector) -> ComplexArray:
        """Return the complex form of the parity, (2 γ, 2 δ)."""
        quaternions, reals = self.split(x)
        blocks = quaternions[:, :, None] * reals[:, None, :, None]
        return complex_form(blocks.reshape(self.gamma, self.delta, 4))

    def pull_back(self, x: Vector, gradient: ComplexArray) -> Vector:
        """Return the gradient in x of what has this gradient in the complex form."""
        g = gradient.reshape(self.gamma, 2, self.delta, 2)
        parts = (
            g[:, 0, :, 0].real + g[:, 1, :, 1].real,
            g[:, 0, :, 0].imag - g[:, 1, :, 1].imag,
            g[:, 0, :, 1].real - g[:, 1, :, 0].real,
            g[:, 0, :, 1].imag + g[:, 1, :, 0].imag,
        )
        blocks = np.stack(parts, axis=-1).reshape(self.gamma, self.delta_q, self.delta_r, 4)
        quaternions, reals = self.split(x)
        # Also right for circulants: join adds up the elements that are one coefficient.
        return self.join(
            (blocks * reals[:, None, :, None]).sum(axis=2),
            (blocks * quaternions[:, :, None]).sum(axis=(1, 3)),
        )

    @property
    def _shifts(self) -> NDArray[np.intp]:
        """(γ, γ): in row i of a circulant, column j has element (j − i) mod γ."""
        turn = np.arange(self.gamma)
        return (turn[None, :] - turn[:, None]) % self.gamma

    def canonical(self, losses: Losses) -> Losses:
        """Return each loss once, and only one of those that the circulants make equal."""
        if not self.cyclic:
            return np.unique(losses, axis=0)
        shares = np.arange(self.n)
        block, place = np.divmod(shares, self.gamma)
        masks = []
        for shift in range(self.gamma):
            moved = block * self.gamma + (place + shift) % self.gamma
            masks.append((np.int64(1) << moved[losses].astype(np.int64)).sum(axis=1))
        first = np.unique(np.min(masks, axis=0))
        bits = (first[:, None] >> shares) & 1
        return np.nonzero(bits)[1].reshape(len(first), -1).astype(np.intp)

    def spectrum(self, x: Vector) -> Spectrum:
        """Return the condition numbers of the code."""
        identity = np.eye(2 * self.delta, dtype=np.complex128)
        generator = np.concatenate([identity, self.parity(x)])
        return Spectrum((generator.reshape(self.n, 2, -1),), self.delta)

    def start(self, rng: np.random.Generator) -> Vector:
        """Return random coefficients to start from."""
        table = seeded_table(self.gamma, self.delta_q, self.delta_r, int(rng.integers(2**31)))
        if self.cyclic:
            return table.quaternions[0].ravel()
        return self.join(table.quaternions, table.reals)


@dataclass(frozen=True)
class ComplexSize(_CodeSize):
    """γ complex parity shares for δ_a × δ_b pairs of parts, and how a vector holds them.

    The vector has, for every parity share, the δ_a and the δ_b complex numbers, as real and
    imaginary parts.
    """

    gamma: int
    delta_a: int
    delta_b: int
    cyclic = False
    block = 1

    @property
    def delta(self) -> int:
        """The recovery threshold."""
        return self.delta_a * self.delta_b

    def table(self, x: Vector) -> ComplexTable:
        """Return the coefficients as a table."""
        numbers = x.reshape(self.gamma, self.delta_a + self.delta_b, 2)
        both = numbers[..., 0] + 1j * numbers[..., 1]
        a, b = both[:, : self.delta_a], both[:, self.delta_a :]
        return ComplexTable(a, b, math.nan, "none", "seeded")

    def systems(self, x: Vector) -> tuple[ComplexArray, ...]:
        """Return the parity of both complex systems, each (γ, δ)."""
        return self.table(x).parities

    def pull_back_all(self, x: Vector, gradients: Sequence[ComplexArray]) -> Vector:
        """Return the gradient in x of what has these gradients in the two systems."""
        table = self.table(x)
        first, second = (g.reshape(self.gamma, self.delta_a, self.delta_b) for g in gradients)
        of_a = (first * table.b[:, None].conj() + second * table.b[:, None]).sum(axis=2)
        of_b = (first * table.a[:, :, None].conj()).sum(axis=1)
        of_b = of_b + (second.conj() * table.a[:, :, None]).sum(axis=1)
        both = np.concatenate([of_a, of_b], axis=1)
        return np.stack([both.real, both.imag], axis=-1).ravel()

    def spectrum(self, x: Vector) -> Spectrum:
        """Return the condition numbers of the code."""
        return self.table(x).spectrum()

    def start(self, rng: np.random.Generator) -> Vector:
        """Return random coefficients to start from."""
        seed = int(rng.integers(2**31))
        table = random_complex_table(self.gamma, self.delta_a, self.delta_b, seed)
        both = np.concatenate([table.a, table.b], axis=1)
        return np.stack([both.real, both.imag], axis=-1).ravel()


AnySize: TypeAlias = Size | ComplexSize


def parse_size(text: str) -> AnySize:
    """Read ``n,δ``, ``n,δ_q x δ_r`` or ``n,δ_a c δ_b``."""
    n, _, parts = text.partition(",")
    if "c" not in parts:
        return Size.parse(text)
    a, b = (int(part) for part in parts.split("c"))
    return ComplexSize(int(n) - a * b, a, b)


def objective(size: AnySize, losses: Losses, p: float) -> Callable[[Vector], tuple[float, Vector]]:
    """Return x ↦ (log of the p-mean of the condition numbers, gradient)."""
    groups = [(rows, columns) for _, rows, columns in by_missing(losses, size.n, size.delta)]
    groups = [group for group in groups if group[1].shape[1]]

    def value_and_gradient(x: Vector) -> tuple[float, Vector]:
        systems = size.systems(x)
        logs: list[Vector] = []
        extremes = []
        for number, parity in enumerate(systems):
            for rows, columns in groups:
                values, vectors = np.linalg.eigh(pencils(parity, size.block, rows, columns))
                low, high = np.maximum(values[:, 0], 1e-18), values[:, -1]
                logs.append(0.5 * np.log(high / low))
                part = vectors[:, -size.block * rows.shape[1] :]
                extremes.append(
                    (number, rows, columns, (-1.0, low, part[:, :, 0]), (1.0, high, part[:, :, -1]))
                )
        top = max(float(log.max()) for log in logs)
        weights = [np.exp(p * (log - top)) for log in logs]
        total = sum(float(weight.sum()) for weight in weights)
        gradients = [np.zeros_like(parity) for parity in systems]
        for weight, (number, rows, columns, *both) in zip(weights, extremes, strict=True):
            for sign, eigenvalue, vector in both:
                gradients[number] += sign * _eigenvalue_gradient(
                    systems[number], size.block, rows, columns, eigenvalue, vector, weight / total
                )
        return top + math.log(total) / p, size.pull_back_all(x, gradients)

    return value_and_gradient


def _eigenvalue_gradient(
    parity: ComplexArray,
    block: int,
    rows: Losses,
    columns: Losses,
    eigenvalue: Vector,
    vector: ComplexArray,
    weight: Vector,
) -> ComplexArray:
    """Return the gradient of Σ weight · log(eigenvalue) / 2.

    λ is a root of λ² − λ (1 + yᴴ W y) + yᴴ M Mᴴ y, W = P Pᴴ on the present rows, and a
    stationary one in y.
    """
    row_index, column_index = expand(rows, block), expand(columns, block)
    each = np.arange(len(rows))[:, None]
    spread = np.zeros((len(rows), len(parity)), dtype=np.complex128)
    spread[each, row_index] = vector
    image = spread @ parity.conj()
    squared = (np.abs(vector) ** 2).sum(axis=1)
    if row_index.shape[1] == parity.shape[1]:
        slope, pushed = squared, image
    else:
        slope = (2 * eigenvalue - 1) * squared - (np.abs(image) ** 2).sum(axis=1)
        pushed = eigenvalue[:, None] * image
        pushed[each, column_index] -= image[each, column_index]
    factor = weight / eigenvalue / slope
    return (factor[:, None] * spread).T @ pushed.conj()


def countable(
    size: AnySize, rng: np.random.Generator, effort: float, log: Callable[..., None]
) -> Vector:
    """Return the best coefficients found where every loss can be looked at."""
    every = every_loss(size.n, size.gamma)

    def stage(x: Vector, p: float, iterations: int, most: int) -> Vector:
        conditions = size.spectrum(x).conditions(every)
        active = every[np.argsort(-conditions)[:most]]
        active = active[: max(1, int((conditions > conditions.max() * math.exp(-14 / p)).sum()))]
        options = {"maxiter": iterations, "maxcor": 20}
        found = minimize(
            objective(size, active, p), x, jac=True, method="L-BFGS-B", options=options
        )
        return np.asarray(found.x)

    def worst(x: Vector) -> float:
        return float(size.spectrum(x).conditions(every).max())

    starts = max(2, min(24, int(effort * 5_000 / len(every))))
    candidates = []
    for _ in range(starts):
        x = min((size.start(rng) for _ in range(8)), key=worst)
        for p in (3, 6, 12):
            x = stage(x, p, 60, len(every))
        for p in (20, 20, 40, 40):
            x = stage(x, p, 30, 1500)
        candidates.append((worst(x), x))
    candidates.sort(key=lambda candidate: candidate[0])
    log(" ".join(f"{value:.3f}" for value, _ in candidates[:6]))
    finished = []
    for _, begun in candidates[:3]:
        x = begun
        for p in (80, 160, 400, 1000, 3000, 10_000):
            for _ in range(3):
                x = stage(x, p, 30, 800)
            finished.append((worst(x), x))
    return min(finished, key=lambda candidate: candidate[0])[1]


def uncountable(
    size: Size,
    rng: np.random.Generator,
    effort: float,
    log: Callable[..., None],
    keep: Callable[[Vector], None],
) -> Vector:
    """Return the coefficients that small steps against a pool of bad losses lead to."""
    rounds = max(20, int(100 * effort))
    x = min((size.start(rng) for _ in range(12)), key=lambda x: _glance(size, x, rng))
    pool = contiguous_losses(size.n, size.gamma)
    first, second = np.zeros_like(x), np.zeros_like(x)
    steps = 0
    for turn in range(rounds):
        done = 0.5 * turn / rounds
        rate, p = 1.2e-4 * 0.1**done, 25.0 * 3.0**done
        spectrum = size.spectrum(x)
        again = _shuffled(rng, pool[: min(len(pool), 300)], size.n, 60)
        fresh = np.concatenate([_random(rng, 60, size), again])
        found = [spectrum.climb(fresh)]
        pool = size.canonical(np.concatenate([pool, *found]))
        conditions = spectrum.conditions(pool)
        order = np.argsort(-conditions)[:4000]
        pool, conditions = pool[order], conditions[order]
        if turn % 10 == 0:
            hundredth = conditions[min(99, len(pool) - 1)]
            log(f"{turn}/{rounds} worst {conditions[0]:.1f} 100th {hundredth:.1f}")
        function = objective(size, pool[:600], p)
        for _ in range(4):
            _, gradient = function(x)
            steps += 1
            first = 0.8 * first + 0.2 * gradient
            second = 0.98 * second + 0.02 * gradient**2
            # One step size for all coefficients: directions that change nothing stay still.
            size_of_step = math.sqrt(float((second / (1 - 0.98**steps)).mean()))
            x = x - rate * (first / (1 - 0.8**steps)) / size_of_step
    keep(x)
    return x


def mended(
    size: Size,
    x: Vector,
    cycles: int,
    log: Callable[..., None],
    keep: Callable[[Vector, float], None],
) -> None:
    """Enumerate all bad losses, take small steps against them, and again; keep the best."""
    best = math.inf
    for cycle in range(cycles):
        x = np.round(x / UNIT) * UNIT
        pool = every_bad_loss(size, size.parity(x), size.spectrum(x), 240.0)
        conditions = size.spectrum(x).conditions(pool)
        worst = float(conditions.max())
        log(f"cycle {cycle}: {len(pool)} losses and their turns of 240 or more, worst {worst:.2f}")
        if worst < best:
            best = worst
            keep(x, worst)
        first, second = np.zeros_like(x), np.zeros_like(x)
        for step in range(1, 61):
            done = step / 60
            rate = 6e-5 * (1 - 0.8 * done) * max(0.3, 0.93**cycle)
            if step % 4 == 1:
                active = pool[np.argsort(-size.spectrum(x).conditions(pool))[:800]]
                function = objective(size, active, 30 * 2.5**done)
            _, gradient = function(x)
            first = 0.8 * first + 0.2 * gradient
            second = 0.98 * second + 0.02 * gradient**2
            size_of_step = math.sqrt(float((second / (1 - 0.98**step)).mean()))
            x = x - rate * (first / (1 - 0.8**step)) / size_of_step


def raced(size: Size, effort: float, log: Callable[..., None]) -> tuple[ParityTable, float]:
    """Return the best of some seeds and the worst condition number found for it.

    Each is judged by the worst of four searches, every one as in ``measure``.
    """
    best: tuple[ParityTable, float] | None = None
    for seed in range(max(2, int(12 * effort))):
        table = seeded_table(size.gamma, size.delta_q, size.delta_r, seed)
        spectrum, worst = table.spectrum(), 0.0
        for attempt in range(4):
            rng = np.random.default_rng([attempt, size.n, size.gamma])
            worst = max(worst, worst_found(spectrum, size.gamma, rng)[0])
            if best is not None and worst >= best[1]:
                break
        log(f"seed {seed}: {worst:.0f} after {attempt + 1} searches")
        if best is None or worst < best[1]:
            best = table, worst
    assert best is not None
    return best


def _worst_after(spectrum: Spectrum, begin: Losses) -> float:
    return float(spectrum.conditions(spectrum.climb(begin)).max())


def look(
    size: AnySize, spectrum: Spectrum, effort: float = 1.0, seed: int = 12345
) -> tuple[float, str]:
    """Return the worst condition number: over all losses, or over samples and a search."""
    if size.losses <= COUNTABLE:
        return float(spectrum.conditions(every_loss(size.n, size.gamma)).max()), "all"
    rng = np.random.default_rng(seed)
    sampled = _random(rng, int(5000 * effort), size)
    begin = np.concatenate([contiguous_losses(size.n, size.gamma), sampled])
    losses = np.concatenate([begin, spectrum.worsen(begin[: int(2000 * effort)])])
    losses = np.concatenate([losses, spectrum.climb(_random(rng, int(1000 * effort), size))])
    worst = losses[np.argsort(-spectrum.conditions(losses))[: int(300 * effort)]]
    losses = np.concatenate([worst, spectrum.climb(worst)])
    again = spectrum.climb(_shuffled(rng, worst, size.n, int(1000 * effort)))
    return float(spectrum.conditions(np.concatenate([losses, again])).max()), "search"


def _glance(size: Size, x: Vector, rng: np.random.Generator) -> float:
    return _worst_after(size.spectrum(x), _random(rng, 40, size))


def _random(rng: np.random.Generator, count: int, size: AnySize) -> Losses:
    order = np.argsort(rng.random((count, size.n)), axis=1)
    return np.sort(order[:, : size.gamma], axis=1).astype(np.intp)


def _shuffled(rng: np.random.Generator, losses: Losses, n: int, count: int) -> Losses:
    """Return some of the losses with two shares changed at random."""
    chosen = losses[rng.integers(len(losses), size=count)]
    mask = np.zeros((count, n))
    mask[np.arange(count)[:, None], chosen] = 1.0
    noise = rng.random((count, n))
    leaving = np.argsort(mask * noise, axis=1)[:, -2:]
    entering = np.argsort((1 - mask) * noise, axis=1)[:, -2:]
    mask[np.arange(count)[:, None], leaving] = 0.0
    mask[np.arange(count)[:, None], entering] = 1.0
    return np.nonzero(mask)[1].reshape(count, -1).astype(np.intp)


def store(size: AnySize, x: Vector, out: Path, log: Callable[..., None]) -> None:
    """Round, measure and write."""
    if isinstance(size, ComplexSize):
        given = size.table(x)
        power = np.sqrt((np.abs(given.b) ** 2).mean(axis=1, keepdims=True))
        a, b = rounded_complex(given.a * power), rounded_complex(given.b / power)
        table = ComplexTable(a, b, math.nan, "none", "seeded")
        write_complex(size, table, *look(size, table.spectrum()), out, log)
        return
    quaternions, reals = size.split(x)
    power = np.sqrt((reals**2).mean(axis=1, keepdims=True))
    of_quaternions = rounded(quaternions * power[:, :, None])
    quaternion_table = ParityTable(
        of_quaternions, rounded(reals / power), math.nan, "none", "seeded"
    )
    write(size, quaternion_table, *look(size, quaternion_table.spectrum()), out, log)


def write(
    size: Size, table: ParityTable, worst: float, method: str, out: Path, log: Callable[..., None]
) -> None:
    """Write a table of quaternions unless what is there is better."""
    path = out / f"parity-{size.gamma}-{size.delta_q}-{size.delta_r}.json"
    stored = {"gamma": size.gamma, "delta_q": size.delta_q, "delta_r": size.delta_r}
    coefficients = {"quaternions": _integers(table.quaternions), "reals": _integers(table.reals)}
    _replace(path, stored, worst, method, coefficients, log)


def write_complex(
    size: ComplexSize,
    table: ComplexTable,
    worst: float,
    method: str,
    out: Path,
    log: Callable[..., None],
) -> None:
    """Write a table of complex numbers unless what is there is better."""
    path = out / f"complex-{size.gamma}-{size.delta_a}-{size.delta_b}.json"
    stored = {"gamma": size.gamma, "delta_a": size.delta_a, "delta_b": size.delta_b}
    sides = {"a": table.a, "b": table.b}
    coefficients = {
        name: _integers(np.stack([side.real, side.imag], axis=-1)) for name, side in sides.items()
    }
    _replace(path, stored, worst, method, coefficients, log)


def _integers(values: Vector) -> list[int]:
    found: list[int] = np.round(values / UNIT).astype(int).ravel().tolist()
    return found


def _replace(
    path: Path,
    size: dict[str, int],
    worst: float,
    method: str,
    coefficients: dict[str, list[int]],
    log: Callable[..., None],
) -> None:
    """Write a file unless what is there is better."""
    there = json.loads(path.read_text()) if path.exists() else {"worst": math.inf, "method": ""}
    if there["worst"] <= worst and (there["method"] == "all" or method == "search"):
        log(f"worst {worst:.4f} ({method}), not better than what is there")
        return
    stored = {**size, "worst": round(worst, 6), "method": method, **coefficients}
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(stored, separators=(",", ":")) + "\n")
    draft.replace(path)
    log(f"worst {worst:.4f} ({method}), written")


def main() -> None:
    """Optimise the sizes that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sizes", nargs="*", help="n,δ or n,δ_q x δ_r")
    parser.add_argument("--usual", action="store_true", help="all sizes that are shipped")
    parser.add_argument("--out", type=Path, required=True, help="folder for the tables")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--effort", type=float, default=1.0, help="more starts, more rounds")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for text in [*arguments.sizes, *(USUAL.split() if arguments.usual else [])]:
        size = parse_size(text)
        parts = (
            (size.delta_a, size.delta_b)
            if isinstance(size, ComplexSize)
            else (size.delta_q, size.delta_r)
        )
        rng = np.random.default_rng([arguments.seed, size.gamma, *parts])
        begun = time.monotonic()

        def log(message: str, text: str = text, begun: float = begun) -> None:
            print(f"({text}) {time.monotonic() - begun:.0f} s: {message}", flush=True)

        def keep(x: Vector, size: AnySize = size, log: Callable[..., None] = log) -> None:
            store(size, x, arguments.out, log)

        if size.losses <= COUNTABLE:
            keep(countable(size, rng, arguments.effort, log))
        elif isinstance(size, ComplexSize):
            log(f"{size.losses} losses are too many for complex parity: nothing is done")
        elif size.losses > TRACKABLE:
            write(size, *raced(size, arguments.effort, log), "search", arguments.out, log)
        else:
            _optimise_by_search(size, rng, arguments, log, keep)


def _optimise_by_search(
    size: Size,
    rng: np.random.Generator,
    arguments: argparse.Namespace,
    log: Callable[..., None],
    keep: Callable[[Vector], None],
) -> None:
    def enumerated(x: Vector, worst: float) -> None:
        table = ParityTable(*size.split(x), math.nan, "none", "seeded")
        write(size, table, worst, "all", arguments.out, log)

    x = uncountable(size, rng, arguments.effort, log, keep)
    if size.cyclic:
        mended(size, x, int(12 * arguments.effort), log, enumerated)


if __name__ == "__main__":
    main()
