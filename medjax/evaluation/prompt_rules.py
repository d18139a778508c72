"""How embedded prompts become a score: the published rules of zero-shot classification, by name.

A rule first gives each set of prompts (those of presence, those of absence, those of a class) one number an example,
then decides: between presence and absence by their difference or a softmax of the two, or by presence alone; among
classes that exclude each other by the largest.

Rules by logits use the model's own scorer, which joins several modalities as it was trained to and carries the model's
temperature. Rules by cosine compare one vector with the prompts: the embedding of one modality, or where several are
there the mean of their unit vectors (`mean_embedding`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.special import logit

from medjax.errors import UserError

Scorer = Callable[..., np.ndarray]  # see `medjax.methods.base.Scorer`
_LEAST = 1e-12  # of a probability whose log odds are taken


def unit(x: np.ndarray) -> np.ndarray:
    """float64 of the same shape: rows of length one; rows of zeros stay."""
    x = np.asarray(x, np.float64)
    norm = np.linalg.norm(x, axis=-1, keepdims=True)
    return np.divide(x, norm, out=np.zeros_like(x), where=norm > 0)


def mean_embedding(embeddings: Mapping[str, np.ndarray], present: Mapping[str, np.ndarray]) -> np.ndarray:
    """float64[n, E]: the unit vector along the mean of the unit vectors of the modalities an example has; zero where
    it has none. embeddings: `{modality: float[n, E]}`. present: `{modality: bool[n]}`."""
    return unit(sum(unit(x) * present[m][:, None] for m, x in embeddings.items()))


def ensemble(prompts_pe: np.ndarray) -> np.ndarray:
    """float64[E]: normalise, mean, normalise, as CLIP (arXiv 2103.00020, section 3.1.4) and CheXzero do."""
    return unit(unit(prompts_pe).mean(axis=0))


def mean_then_unit(prompts_pe: np.ndarray) -> np.ndarray:
    """float64[E]: mean, normalise, as BioViL does with embeddings before normalisation; of unit vectors it is the same
    as `ensemble`."""
    return unit(np.asarray(prompts_pe, np.float64).mean(axis=0))


def ensemble_cosine(x_ne: np.ndarray, prompts_pe: np.ndarray) -> np.ndarray:
    """float64[n]: cosine with the `ensemble` of the prompts. x_ne: unit vectors, here and below."""
    return x_ne @ ensemble(prompts_pe)


def mean_prompt_cosine(x_ne: np.ndarray, prompts_pe: np.ndarray) -> np.ndarray:
    """float64[n]: cosine with `mean_then_unit` of the prompts."""
    return x_ne @ mean_then_unit(prompts_pe)


def max_cosine(x_ne: np.ndarray, prompts_pe: np.ndarray) -> np.ndarray:
    """float64[n]: the largest cosine of the prompts, as in GLoRIA's code (doi 10.1109/ICCV48922.2021.00391); of
    its similarities the global one."""
    return (x_ne @ unit(prompts_pe).T).max(axis=1)


def mean_cosine(x_ne: np.ndarray, prompts_pe: np.ndarray) -> np.ndarray:
    """float64[n]: the mean of the cosines of the prompts."""
    return (x_ne @ unit(prompts_pe).T).mean(axis=1)


def pair_softmax(present_n: np.ndarray, absent_n: np.ndarray) -> np.ndarray:
    """float64[n]: exp(a) / (exp(a) + exp(b)), without overflow."""
    return 0.5 * (1 + np.tanh((present_n - absent_n) / 2))


def set_zscore(scores: np.ndarray) -> np.ndarray:
    """The scores, [n] or [n, C], less their mean over the n examples, by their spread: what an example scores then
    depends on which others are evaluated with it."""
    spread = scores.std(axis=0)
    return (scores - scores.mean(axis=0)) / np.where(spread > 0, spread, 1.0)


def model_scale(scorer: Scorer, embeddings: Mapping[str, np.ndarray]) -> float:
    """The logit scale, one over the temperature, that the model's scorer has between text and one other modality: half
    the difference of the logits of a unit vector with itself and its opposite; the mean over `embeddings`' modalities.

    Raises:
      UserError: the scorer does not compare a single modality with text.
    """
    slopes = []
    for m, x in embeddings.items():
        e = np.zeros((2, x.shape[1]), np.float32)
        e[:, 0] = 1.0, -1.0
        logits = np.asarray(scorer({m: e[:1]}, e, "text", {m: np.ones(1, bool)}), np.float64)
        slopes.append((logits[0, 0] - logits[0, 1]) / 2)
    if not slopes or not np.all(np.isfinite(slopes)) or np.mean(slopes) <= 0:
        raise UserError("this encoder has no logit scale between text and a single modality; choose a rule by cosine")
    return float(np.mean(slopes))


@dataclass(frozen=True)
class Rule:
    """by: a function of (unit vectors [n, E], prompts [p, E]), or None for the mean of the scorer's logits. decide:
    "difference", "softmax" or "positive". scaled: cosines are multiplied by the model's logit scale. single: takes one
    prompt a set. zscore: see `set_zscore`. says: what it does, for reports. source: where it is from."""

    name: str
    by: Callable[[np.ndarray, np.ndarray], np.ndarray] | None
    decide: str
    says: str
    source: str = ""
    scaled: bool = False
    single: bool = False
    zscore: bool = False

    @property
    def needs_negative(self) -> bool:
        """Whether prompts for absence are compared."""
        return self.decide != "positive"

    @property
    def probability(self) -> bool:
        """Whether its score of a pair reads as a probability."""
        return self.decide == "softmax"

    @property
    def log_odds(self) -> bool:
        """Whether its `margin` reads as the log odds of presence."""
        return self.probability or (self.by is None and self.decide == "difference")

    def margin(self, scores: np.ndarray) -> np.ndarray:
        """float64 of the same shape: probabilities as log odds, other scores as they are."""
        return logit(np.clip(scores, _LEAST, 1 - _LEAST)) if self.probability else scores

    def set_scores(
        self,
        embeddings: Mapping[str, np.ndarray],
        present: Mapping[str, np.ndarray],
        sets: Sequence[np.ndarray],
        scorer: Scorer,
    ) -> np.ndarray:
        """float64[n, S]: of each set of prompts float[p, E], before deciding; NaN for an empty set."""
        out = np.full((len(next(iter(embeddings.values()))), len(sets)), np.nan)
        if self.by is None:
            logits = np.asarray(scorer(embeddings, np.concatenate(sets), "text", present), np.float64)
            ends = np.cumsum([0, *map(len, sets)])
            parts = [logits[:, a:b] for a, b in pairwise(ends)]
            for i, part in enumerate(parts):
                if part.shape[1]:
                    out[:, i] = part.mean(axis=1)
            return out
        x = mean_embedding(embeddings, present)
        scale = model_scale(scorer, embeddings) if self.scaled else 1.0
        for i, prompts in enumerate(sets):
            if len(prompts):
                out[:, i] = scale * self.by(x, prompts)
        return out

    def pair(self, present_n: np.ndarray, absent_n: np.ndarray) -> np.ndarray:
        """float64[n]: the score of a finding from the scores of its two sets."""
        score = {"difference": lambda: present_n - absent_n, "positive": lambda: present_n}.get(
            self.decide, lambda: pair_softmax(present_n, absent_n)
        )()
        return set_zscore(score) if self.zscore else score

    def classes(self, scores_nc: np.ndarray) -> np.ndarray:
        """float64[n, C]: the scores of classes that exclude each other; the largest is called."""
        return set_zscore(scores_nc) if self.zscore else scores_nc

    def as_dict(self) -> dict[str, object]:
        """For results.json."""
        return {"name": self.name, "what": self.says, "source": self.source, "set_zscore": self.zscore}


DEFAULT = "difference"
_GLORIA = "GLoRIA, its global similarity"
RULES = {
    r.name: r
    for r in (
        Rule("difference", None, "difference", "difference of the mean logits of positive and negative prompts"),
        Rule("softmax", None, "softmax", "softmax of the mean logits of positive and negative prompts"),
        Rule(
            "chexzero",
            ensemble_cosine,
            "softmax",
            "softmax, without temperature, of the cosines with the normalised mean of either side's unit vectors",
            "CheXzero, doi 10.1038/s41551-022-00936-9",
        ),
        Rule(
            "biovil",
            mean_prompt_cosine,
            "difference",
            "difference of the cosines with the normalised mean of either side's prompts",
            "BioViL, arXiv 2204.09817",
        ),
        Rule(
            "clip",
            ensemble_cosine,
            "softmax",
            "softmax over classes of the logit scale times the cosine with the normalised mean of unit vectors",
            "CLIP, arXiv 2103.00020",
            scaled=True,
        ),
        Rule("gloria_max", max_cosine, "positive", "largest cosine of the positive prompts", _GLORIA),
        Rule("gloria_mean", mean_cosine, "positive", "mean cosine of the positive prompts", _GLORIA),
        Rule(
            "merl",
            ensemble_cosine,
            "positive",
            "cosine with the one positive prompt",
            "MERL, arXiv 2403.06659",
            single=True,
        ),
        Rule("cosine", ensemble_cosine, "positive", "cosine with the normalised mean of the positive unit vectors"),
    )
}


def check_prompts(rule: Rule, positive: Mapping[str, Sequence[str]]) -> None:
    """positive: `{finding: prompts}`.

    Raises:
      UserError: the rule takes one prompt and a finding has several.
    """
    several = [k for k, prompts in positive.items() if len(prompts) > 1]
    if rule.single and several:
        raise UserError(
            f"rule {rule.name!r} takes one positive prompt, and {', '.join(several)} "
            f"{'has' if len(several) == 1 else 'have'} several; pass --prompts with one each, or --rule=cosine"
        )
