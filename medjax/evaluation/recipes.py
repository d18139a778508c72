"""The recipes of probes by name."""

from dataclasses import dataclass

import numpy as np
from sklearn.preprocessing import StandardScaler

from medjax.evaluation.choosing import Fit
from medjax.evaluation.gradient_recipes import mlp, sgd
from medjax.evaluation.knn import knn
from medjax.evaluation.sklearn_recipes import lbfgs, newton

NORMALISATIONS = {
    "standardise": "standardised by the mean and spread of the training split",
    "l2": "scaled to unit length",
}


@dataclass(frozen=True)
class Recipe:
    """name: in `RECIPES`. fit: see `Fit`. says: what it does, for reports. normalise: of features, in
    `NORMALISATIONS`. flags: whether features say which modalities are there."""

    name: str
    fit: Fit
    says: str
    normalise: str = "standardise"
    flags: bool = True

    def normalised(self, x: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The features `{split: float[n, D]}` as the recipe takes them; rows of zeros stay."""
        if self.normalise == "standardise":
            scaler = StandardScaler().fit(x["train"])
            return {k: scaler.transform(v) for k, v in x.items()}
        return {k: v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-12) for k, v in x.items()}

    def as_dict(self) -> dict[str, str]:
        """For results.json."""
        return {"name": self.name, "what": self.says, "features": NORMALISATIONS[self.normalise]}


RECIPES = {
    r.name: r
    for r in (
        Recipe("newton", newton, "logistic regression by Newton's method, regularisation chosen among 5 strengths"),
        Recipe("lbfgs", lbfgs, "logistic regression by L-BFGS, regularisation searched as in CLIP"),
        Recipe("sgd", sgd, "a linear layer by SGD with momentum and cosine, learning rate chosen among 6"),
        Recipe("knn", knn, "weighted votes of the k nearest by cosine at temperature 0.07", "l2", flags=False),
        Recipe("mlp", mlp, "one hidden layer of 128 units by SGD, learning rate chosen among 6"),
    )
}
