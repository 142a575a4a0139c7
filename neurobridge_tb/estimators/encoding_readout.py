"""Reading codes of images out of responses by Bayes' rule, through a linear encoding model.

Each channel's response is modelled as a linear function of the codes (ridge regression). Turned round with a standard
normal prior on the codes, it gives their posterior mean and says how precise that is (Naselaris et al. 2009). Noise
is split into what an average over presentations removes and what it does not, so that a read-out that was fitted to
single presentations is right for averages too, which a regression from responses to codes is not.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from neurobridge_tb.arrays import Array, Floats, Standardizer, to_floats, to_numpy
from neurobridge_tb.errors import InputError

PENALTIES = tuple(float(p) for p in np.logspace(1, 5, 9))
_FOLDS = 4
_SHRINKAGE = 0.1  # of the noise covariance towards its diagonal


@dataclass(frozen=True)
class EncodingReadout:
    """A fitted read-out of codes.

    Attributes:
        inputs: How responses are standardised.
        code_mean: ``(K,)``, the mean of the training codes.
        weights: ``(K, N)``, standardised responses to centred codes.
        weight_covariance: ``(K, K)``, how uncertain the weights are, for a channel with a residual variance of one.
        residual: ``(N, N)``, covariance of single presentations around the model, on held-out images.
        noise: ``(N, N)``, the part of it that differs from presentation to presentation of one image.
        penalty: The ridge penalty chosen.
    """

    inputs: Standardizer
    code_mean: Floats
    weights: Floats
    weight_covariance: Floats
    residual: Floats
    noise: Floats
    penalty: float

    @classmethod
    def fit(
        cls,
        responses: Array,
        codes: Array,
        variance: Array,
        *,
        repeats: tuple[Array, Array] | None = None,
        penalties: Sequence[float] = PENALTIES,
    ) -> "EncodingReadout":
        """Fit to single presentations; the penalty is chosen by four-fold cross-validation among them.

        Args:
            responses: ``(n, N)``; NaN counts as the channel's mean.
            codes: ``(n, K)``, those of the images shown; of deviation about one.
            variance: ``(K,)``, how much of the features' variance each code stands for: the larger, the less its
                weights are shrunken.
            repeats: Responses ``(m, N)`` to images shown several times, and ``(m,)`` which image; only how they vary
                around each image's mean is used. Default: none, then presentations are taken to have no noise of their
                own, and averages must not be read.
            penalties: Penalties tried.

        Raises:
            InputError: The shapes do not fit one another, or there are fewer than 8 presentations.
        """
        targets, spread = to_floats(codes), np.sqrt(to_floats(variance))
        shapes = np.shape(responses), targets.shape, spread.shape
        if targets.ndim != 2 or shapes[0][0] != len(targets) or shapes[2] != targets.shape[1:] or len(targets) < 8:
            raise InputError(
                expected="responses (n, N), codes (n, K) and variance (K,), n at least 8",
                found=f"shapes {', '.join(map(str, shapes))}",
                fix="Pass one row a presentation.",
            )
        inputs, code_mean = Standardizer.fit(responses), targets.mean(0)
        seen, scale = inputs(responses), spread / np.sqrt((spread**2).mean())
        scaled = (targets - code_mean) * scale
        folds = np.array_split(np.random.default_rng(0).permutation(len(seen)), _FOLDS)
        errors = np.sum([[(left**2).sum() for left in _held_out(scaled, seen, fold, penalties)] for fold in folds], 0)
        best = int(np.argmin(errors))
        left = np.concatenate([next(_held_out(scaled, seen, fold, penalties[best : best + 1])) for fold in folds])
        gram = scaled.T @ scaled
        inverse = np.linalg.inv(gram + penalties[best] * np.eye(len(gram)))
        return cls(
            inputs,
            code_mean,
            weights=scale[:, None] * (inverse @ (scaled.T @ seen)),
            weight_covariance=scale[:, None] * (inverse @ gram @ inverse) * scale,
            residual=left.T @ left / len(left),
            noise=np.zeros((seen.shape[1],) * 2) if repeats is None else _repeat_covariance(inputs, *repeats),
            penalty=float(penalties[best]),
        )

    def posterior(self, responses: Array, *, presentations: float = 1.0) -> tuple[Floats, Floats]:
        """Codes given responses.

        Args:
            responses: ``(m, N)``, averages over presentations.
            presentations: Over how many.

        Returns:
            Posterior means ``(m, K)``, and the information ``(K, K)``: what the responses add to the precision of the
            prior, less what noise in the weights only seems to add.
        """
        size = len(self.weights)
        lasting = _positive(self.residual - self.noise) + self.noise / presentations
        covariance = (1 - _SHRINKAGE) * lasting + _SHRINKAGE * np.diag(np.diag(lasting))
        filters = np.linalg.solve(covariance, self.weights.T)
        precision = self.weights @ filters
        mean = np.linalg.solve(np.eye(size) + precision, (self.inputs(responses) @ filters).T).T + self.code_mean
        spurious = np.trace(np.linalg.solve(covariance, self.residual)) * self.weight_covariance
        return mean, _positive(precision - spurious, floor=0.0)


def _held_out(codes: Floats, seen: Floats, fold: np.ndarray, penalties: Sequence[float]) -> Iterator[Floats]:
    """Residuals of a fold's responses for each penalty, the model being fitted to the other folds."""
    train = np.setdiff1d(np.arange(len(seen)), fold)
    values, vectors = np.linalg.eigh(codes[train].T @ codes[train])
    projected, scores = vectors.T @ (codes[train].T @ seen[train]), codes[fold] @ vectors
    return (seen[fold] - scores / (values.clip(0) + penalty) @ projected for penalty in penalties)


def _repeat_covariance(inputs: Standardizer, responses: Array, image: Array) -> Floats:
    """Covariance of presentations around the mean of their image."""
    values, (groups, index) = inputs(responses), np.unique(to_numpy(image), return_inverse=True)
    count = np.bincount(index, minlength=len(groups))
    total = np.zeros((len(groups), values.shape[1]))
    np.add.at(total, index, values)
    around = values - (total / count[:, None])[index]
    free = len(values) - len(groups)
    if free < 1:
        raise InputError(
            expected="images that were shown more than once",
            found=f"{len(values)} presentations of {len(groups)} images",
            fix="Leave `repeats` out.",
        )
    return around.T @ around / free


def _positive(matrix: Floats, floor: float = 1e-3) -> Floats:
    """The nearest symmetric matrix whose eigenvalues are at least ``floor`` times the largest."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return (vectors * values.clip(floor * max(values.max(), 0.0))) @ vectors.T
