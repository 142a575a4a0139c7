"""How much of a trial's second half can be forecast: bounds that read what no forecast may. Run with --help."""

from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from neurobridge_tb.datasets import BinnedRecordings
from neurobridge_tb.metrics.spikes import poisson_log_likelihood, posterior_mean

PRIOR, SMOOTHING, DECAY = 1.5, 15.0, 6.0  # trials, bins, bins
TIME_CONSTANTS = (5, 10, 20, 40)  # trials
GAINS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
COMPONENTS, SHRINKAGE, LARGEST = 10, 60.0, 1.5
PARTS = 10  # of the test trials; each is predicted from all other trials

Floats = NDArray[np.float64]


@dataclass
class Session:
    """Counts (trials, bins, units), the task (trials, variables), and which trials are the test's."""

    counts: Floats
    task: Floats
    trained: int
    test: NDArray[np.int64]

    @property
    def half(self) -> int:
        return self.counts.shape[1] // 2

    @property
    def mean(self) -> Floats:
        train = self.counts[: self.trained]
        return posterior_mean(train.sum((0, 1)), np.array(train.shape[0] * train.shape[1]))


def read(dataset: BinnedRecordings, recording_id: str) -> Session:
    """A recording of trials of equal length, laid end to end."""
    recording = dataset.get_recording(recording_id)
    trials = recording.trials
    counts = np.asarray(recording.spike_counts.value, float).reshape(len(trials.start), -1, len(recording.units.id))
    columns = [np.asarray(getattr(trials, name)) for name in ("contrast_left", "contrast_right", "feedback")]
    task = np.column_stack([column == value for column in columns for value in np.unique(column)[1:]]).astype(float)
    splits = {s: dataset.get_sampling_intervals(s)[recording_id] for s in ("train", "test")}
    return Session(counts, task, len(splits["train"]), np.flatnonzero(np.isin(trials.start, splits["test"].start)))


def drift(session: Session, time_constant: float, after: bool) -> Floats:
    """(trials, units) each trial's mean count a bin by the trials before it, and ``after`` it, too."""
    apart = np.subtract.outer(np.arange(len(session.counts)), np.arange(len(session.counts)))
    weight = np.exp(-np.abs(apart) / time_constant) * ((apart != 0) if after else (apart > 0))
    return (PRIOR * session.mean + weight @ session.counts.mean(1)) / (PRIOR + weight.sum(1))[:, None]


def smoothed(session: Session, mean: Floats) -> Floats:
    """(trials, bins, units) the last smoothed rate drawn to ``mean``, for each bin of the second half."""
    weight = np.exp(-np.arange(session.half - 1, -1, -1) / DECAY)
    past = np.tensordot(session.counts[:, : session.half], weight, (1, 0))
    return np.repeat(((SMOOTHING * mean + past) / (SMOOTHING + weight.sum()))[:, None], session.half, 1)


def population(session: Session, mean: Floats) -> Floats:
    """(trials, components) what the units of the first half share, in two parts of it."""
    parts = np.array_split(session.counts[:, : session.half], 2, axis=1)
    z = np.hstack([(part.mean(1) - mean) / np.sqrt(mean + 0.02) for part in parts])
    left, scale, _ = np.linalg.svd(z - z.mean(0), full_matrices=False)
    scores = left[:, :COMPONENTS] * scale[:COMPONENTS]
    return np.clip(scores / scores.std(0), -3, 3)


def regression(session: Session, inputs: Floats, base: Floats) -> Floats:
    """(test trials, bins, units) by what log-rates depart from ``base``: Poisson regression on all other trials."""
    x, counts = np.column_stack([np.ones(len(inputs)), inputs]), session.counts[:, session.half :]
    square = (x[:, :, None] * x[:, None]).reshape(len(x), -1)
    out = np.empty((len(session.test), *base.shape[1:]))
    for part in range(PARTS):
        asked = np.arange(len(session.test)) % PARTS == part
        train = np.setdiff1d(np.arange(len(x)), session.test[asked])
        for t in range(base.shape[1]):
            hessian = (square[train].T @ base[train, t]).T.reshape(-1, x.shape[1], x.shape[1])
            gradient = x[train].T @ (counts[train, t] - base[train, t])
            weights = np.linalg.solve(hessian + SHRINKAGE * np.eye(x.shape[1]), gradient.T[:, :, None])[..., 0]
            out[asked, t] = np.clip(x[session.test[asked]] @ weights.T, -LARGEST, LARGEST)
    return out


def bits(session: Session, rates: Floats) -> float:
    """Bits/spike of rates (test trials, bins, units)."""
    counts = session.counts[session.test, session.half :]
    gain = poisson_log_likelihood(rates, counts) - poisson_log_likelihood(session.mean, counts)
    return float(gain.sum() / counts.sum() / np.log(2))


@click.command(help=__doc__)
@click.argument("root", type=click.Path(exists=True, path_type=Path))
def main(root: Path) -> None:
    dataset = BinnedRecordings(root=root)
    sessions = [read(dataset, r) for r in dataset.recording_ids]

    def row(name: str, candidates: list[list[Floats]]) -> None:
        """The best candidate, of which each has rates for every session."""
        values = max(([bits(s, x) for s, x in zip(sessions, rates, strict=True)] for rates in candidates), key=np.mean)
        print(f"| {name} | {np.mean(values):.3f} | {' '.join(f'{v:.3f}' for v in values)} |", flush=True)

    for name, after in (("trials before", False), ("trials before and after", True)):
        drifts = [[drift(s, tau, after) for s in sessions] for tau in TIME_CONSTANTS]
        row(name, [[smoothed(s, d)[s.test] for s, d in zip(sessions, of, strict=True)] for of in drifts])
        means = drifts[2]
        bases = [smoothed(s, mean) for s, mean in zip(sessions, means, strict=True)]
        shared = [population(s, mean) for s, mean in zip(sessions, means, strict=True)]
        for what, inputs in (
            ("population's past", shared),
            ("population's past and task", [np.hstack([x, s.task]) for x, s in zip(shared, sessions, strict=True)]),
        ):
            added = [regression(s, x, base) for s, x, base in zip(sessions, inputs, bases, strict=True)]
            scaled = [
                [base[s.test] * np.exp(gain * x) for s, base, x in zip(sessions, bases, added, strict=True)]
                for gain in GAINS
            ]
            row(f"{name}; regression on the {what}", scaled)
        truth = [s.counts[s.test, s.half :].sum((1, 2)) for s in sessions]
        rates = [base[s.test] for s, base in zip(sessions, bases, strict=True)]
        scaled = [x * (t / x.sum((1, 2)))[:, None, None] for x, t in zip(rates, truth, strict=True)]
        row(f"{name}; the population's rate itself", [scaled])


if __name__ == "__main__":
    main()
