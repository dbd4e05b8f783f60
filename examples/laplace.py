"""The Laplace approximation of a Bayesian classifier of tumours, from the Hessian of its loss.

scikit-learn fits a logistic regression to its breast cancer data. The job accumulates the Hessian
of the summed cross entropy over batches; together with a normal prior it is the precision of the
posterior (D. J. C. MacKay, The evidence framework applied to classification networks, Neural
Computation 4 (1992), 720-736). For this model it equals the Gauss-Newton matrix
Σ p (1 - p) x xᵀ, with which the example compares it.

    python examples/laplace.py

Needs scikit-learn: ``pip install 'autodiff-jobs[examples]'``.
"""

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

import jobs
from outputs import Result

FEATURES = 30
PRIOR_PRECISION = 1.0


class Classifier(nn.Module):
    """A linear classifier that returns scores of shape (samples,)."""

    def __init__(self) -> None:
        """Initialize random weights."""
        super().__init__()
        self.linear = nn.Linear(FEATURES, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logarithm of the odds."""
        return self.linear(x).squeeze(1)


def cross_entropy(score: Tensor, label: Tensor) -> Tensor:
    """Return the sum of -log p(label) over a batch."""
    return (torch.nn.functional.softplus(score) - label * score).sum()


def main() -> None:
    """Fit, run the job, and compare the posterior."""
    data, label = load_breast_cancer(return_X_y=True)
    data = StandardScaler().fit_transform(data)
    fit = LogisticRegression(C=1 / PRIOR_PRECISION, tol=1e-10, max_iter=5000).fit(data, label)
    weight, bias = fit.coef_[0], float(fit.intercept_[0])
    classifier = Classifier().double().eval()
    classifier.linear.load_state_dict(
        {"weight": torch.tensor(fit.coef_), "bias": torch.from_numpy(fit.intercept_)}
    )
    with jobs.compute(
        "hessian",
        classifier,
        {"x": data, "label": label.astype(float)},
        wrt="params",
        strategy="vectorize",
        loss={"target": cross_entropy, "reduction": "sum", "batch_size": 100},
        progress="quiet",
    ) as result:
        assert isinstance(result, Result)
        hessian = result[...]
    extended = np.hstack([data, np.ones((len(data), 1))])
    score = data @ weight + bias
    probability = 1 / (1 + np.exp(-score))
    gauss_newton = (extended * (probability * (1 - probability))[:, None]).T @ extended
    # The bias has no prior, because scikit-learn does not regularize it.
    prior = np.diag([PRIOR_PRECISION] * FEATURES + [0.0])
    covariance = np.linalg.inv(hessian + prior)
    deviation = np.sqrt(np.einsum("ij,jk,ik->i", extended, covariance, extended))
    surest, least = np.argmax(np.abs(score / deviation)), np.argmin(np.abs(score / deviation))
    for name, index in (("surest", surest), ("least sure", least)):
        print(f"{name}: log odds {score[index]:.2f} ± {deviation[index]:.2f}")
    error = np.abs(hessian - gauss_newton).max() / np.abs(gauss_newton).max()
    print(f"largest difference: {error:.1e}")


if __name__ == "__main__":
    main()
