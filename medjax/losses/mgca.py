"""MGCA's three levels of alignment: whole samples, words with patches, and groups of samples by prototype."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from medjax.errors import UserError, check_choice
from medjax.losses.base import Term
from medjax.losses.collectives import AxisName, psum
from medjax.losses.inputs import Inputs
from medjax.losses.items import ImageText
from medjax.losses.objective import Scale, Settings, cross_entropy
from medjax.losses.pairwise import reduce_dot
from medjax.losses.similarity import product
from medjax.losses.token_similarity import each, masked_log_sum, masked_softmax, unit
from medjax.losses.tokens import Tokens


@dataclass(frozen=True)
class MGCAInstance(ImageText):
    """ITA: `CE(s <v_i, t_j>) + CE` of the transpose, the two directions added, not averaged; s = 1 / 0.07, fixed.

    arXiv 2210.06044, and HKU-MedAI/MGCA `mgca_module.py`. Negatives come from the whole mesh; the released
    code sees only those of one GPU. Takes pooled vectors.
    """

    name: ClassVar[str] = "mgca_instance"
    takes: ClassVar[str] = "pooled"
    scale: ClassVar[Scale] = Scale(init=1 / 0.07, learnable=False)
    reduction: ClassVar[str] = "sum"

    def terms(self, inputs: Inputs, settings: Settings) -> dict[str, Term]:
        """Images against texts, and texts against images."""
        rows, columns = reduce_dot(inputs, settings, self.image, self.text)
        return {
            f"{self.image}_to_{self.text}": cross_entropy(rows, 1.0),
            f"{self.text}_to_{self.image}": cross_entropy(columns, 1.0),
        }


@dataclass(frozen=True)
class MGCAToken(ImageText):
    """CTA: each word attends to the patches of its image, and must find what it saw among what the other words saw.

    arXiv 2210.06044, and HKU-MedAI/MGCA `mgca_module.py`; s = 1 / 0.1, fixed:

        o_w = sum_p softmax_p(s <t_w, v_p>) v_p,   1/2 sum_w a_w [ CE_u(s <t_w, o_u>) + CE_u(s <t_u, o_w>) ]

    and the same with patches and words exchanged; the two sides are added. a is `Tokens.weight`, the attention of the
    class token (uniform without one), clipped to its percentiles within the sample and divided by its sum; it has no
    gradient. All pairs are within one sample, so the policies for related pairs have no meaning here.

    variant: "paper" normalises o on both sides, and padding is never a candidate, so that more of it changes nothing;
    "released" leaves what patches saw as it is, as with its ViT, and has padded words among the candidates of words.
    percentiles: of the clipping.
    """

    variant: str = "paper"
    percentiles: tuple[float, float] = (10.0, 90.0)

    name: ClassVar[str] = "mgca_token"
    compares_samples: ClassVar[bool] = False
    scale: ClassVar[Scale] = Scale(init=10.0, learnable=False)
    reduction: ClassVar[str] = "sum"

    def check(self, modalities: tuple[str, ...]) -> None:
        """Raises UserError for unknown modalities or options."""
        super().check(modalities)
        check_choice("variant", self.variant, ("paper", "released"))
        low, high = self.percentiles
        if not 0.0 <= low <= high <= 100.0:
            raise UserError(f"mgca_token's percentiles must be 0 <= low <= high <= 100, got {self.percentiles}")

    def terms(self, inputs: Inputs, settings: Settings) -> dict[str, Term]:
        """What words saw, and what patches saw."""
        image, text, *here = self.both(inputs)
        weights = {"patches": clipped_shares(image, self.percentiles), "words": clipped_shares(text, self.percentiles)}
        samples = {"image": image._replace(pooled=None, weight=None, group=None), "weights": weights}
        samples["text"] = text._replace(pooled=None, weight=None, group=None)
        released = self.variant == "released"

        def one(sample):
            words, patches = sample["text"], sample["image"]
            candidates = words._replace(mask=jnp.ones_like(words.mask)) if released else words
            by_words = _own_index(inputs.logit_scale, candidates, patches, sample["weights"]["words"], True)
            by_patches = _own_index(inputs.logit_scale, patches, words, sample["weights"]["patches"], not released)
            return jnp.stack([by_words, by_patches])

        longest = max(image.mask.shape[1], text.mask.shape[1])
        losses = each(one, samples, longest * longest)
        valid = here[0] & here[1]
        for weight in weights.values():
            valid &= jnp.any(weight > 0, axis=1)
        total = jnp.sum(jnp.where(valid[:, None], losses, 0.0), axis=0)
        count = valid.sum().astype(jnp.float32)
        return {f"{self.text}_tokens": Term(total[0], count), f"{self.image}_tokens": Term(total[1], count)}


def _own_index(scale: jax.Array, x: Tokens, y: Tokens, weight_n: jax.Array, normalise: bool) -> jax.Array:
    """float32[]: the loss of tokens x, `[n, E]` of one sample, that attend to tokens y, `[m, E]`."""
    attention = masked_softmax(scale * product(x.tokens, y.tokens), y.mask[None], 1)
    seen = product(attention, y.tokens.T)
    logits = scale * product(x.tokens, unit(seen) if normalise else seen)
    both = x.mask[:, None] & x.mask[None]
    own = jnp.diagonal(logits)
    loss = masked_log_sum(logits, both, 1) + masked_log_sum(logits, both, 0) - 2.0 * own
    return 0.5 * jnp.sum(weight_n * loss)


def clipped_shares(x: Tokens, percentiles: tuple[float, float]) -> jax.Array:
    """float32[b, n]: weights clipped to percentiles of the positive ones of a sample, adding up to 1; no gradient."""
    weight = jnp.ones(x.mask.shape, jnp.float32) if x.weight is None else x.weight.astype(jnp.float32)
    weight = jax.lax.stop_gradient(weight)
    some = x.mask & (weight > 0)
    low, high = (_quantile(weight, some, p / 100.0) for p in percentiles)
    weight = jnp.where(some, jnp.clip(weight, low[:, None], high[:, None]), 0.0)
    total = jnp.sum(weight, axis=1, keepdims=True)
    return weight / jnp.where(total > 0, total, 1.0)


def _quantile(x_bn: jax.Array, some_bn: jax.Array, q: float) -> jax.Array:
    """float32[b]: quantile of the marked entries of each row, with linear interpolation."""
    ordered = jnp.sort(jnp.where(some_bn, x_bn, jnp.inf), axis=1)
    last = jnp.maximum(jnp.sum(some_bn, axis=1) - 1, 0)
    at = q * last.astype(jnp.float32)
    below = jnp.floor(at).astype(jnp.int32)
    above = jnp.minimum(below + 1, last)
    x, y = (jnp.take_along_axis(ordered, i[:, None], axis=1)[:, 0] for i in (below, above))
    # Not x + share * (y - x): both are infinite in an empty row.
    share = at - below
    return jnp.where(jnp.any(some_bn, axis=1), (1.0 - share) * x + share * y, 0.0)


@dataclass(frozen=True)
class MGCAPrototype(ImageText):
    """CPA: the prototypes that one modality of a sample is assigned to are predicted from the other.

    arXiv 2210.06044, and HKU-MedAI/MGCA `mgca_module.py`; c are the prototypes, normalised by the caller:

        1/2 mean_i [ -sum_k q_k(v_i) log softmax_k(s <t_i, c_k>) ] + 1/2 the same with v and t exchanged, s = 1 / 0.2

    The codes q come from Sinkhorn iterations on `exp(<v_i, c_k> / epsilon)`, which use all prototypes equally; they
    have no gradient. Takes pooled vectors. A sample counts, and enters the balance, where both modalities are present.
    No two samples are compared, so the policies for related pairs have no meaning here.

    epsilon, iterations: of Sinkhorn. sinkhorn: "global" balances the batch of the whole mesh; "local" that of each
    device, which is what the released code does and depends on the number of devices.
    """

    epsilon: float = 0.05
    iterations: int = 3
    sinkhorn: str = "global"

    name: ClassVar[str] = "mgca_prototype"
    takes: ClassVar[str] = "pooled"
    needs: ClassVar[tuple[str, ...]] = ("prototypes",)
    compares_samples: ClassVar[bool] = False
    scale: ClassVar[Scale] = Scale(init=5.0, learnable=False)

    def check(self, modalities: tuple[str, ...]) -> None:
        """Raises UserError for unknown modalities or options."""
        super().check(modalities)
        check_choice("sinkhorn", self.sinkhorn, ("global", "local"))
        if self.epsilon <= 0 or self.iterations < 1:
            raise UserError(
                f"mgca_prototype needs epsilon > 0 and iterations >= 1, got {self.epsilon}, {self.iterations}"
            )

    def terms(self, inputs: Inputs, settings: Settings) -> dict[str, Term]:
        """The codes of images predicted from texts, and those of texts from images."""
        valid = inputs.present[self.image] & inputs.present[self.text]
        axis_name = inputs.axis_name if self.sinkhorn == "global" else None
        scores = {m: product(inputs.embeddings[m], inputs.prototypes) for m in (self.image, self.text)}
        terms = {}
        for x, y in ((self.image, self.text), (self.text, self.image)):
            codes = sinkhorn(jax.lax.stop_gradient(scores[x]) / self.epsilon, valid, self.iterations, axis_name)
            loss = -jnp.sum(codes * jax.nn.log_softmax(inputs.logit_scale * scores[y], axis=1))
            terms[f"{x}_to_{y}"] = Term(loss, valid.sum().astype(jnp.float32), 0.5)
        return terms


def sinkhorn(log_bk: jax.Array, valid: jax.Array, iterations: int, axis_name: AxisName) -> jax.Array:
    """float32[b, k]: exp(log_bk) scaled so that every valid row adds up to 1 and, nearly, all columns to the same.

    Rows are those of the whole mesh axis. Works on logarithms, since exp(1 / 0.05) is 5e8; rows that are not valid are
    zero. arXiv 2006.09882 (SwAV).
    """
    some = valid[:, None]
    log_bk = jnp.where(some, log_bk, 0.0)
    for _ in range(iterations):
        top = jnp.max(jnp.where(some, log_bk, -1e30), axis=0)
        top = top if axis_name is None else jax.lax.pmax(top, axis_name)
        total = psum(
            jnp.sum(jnp.where(some, jnp.exp(jnp.where(some, log_bk - top[None], 0.0)), 0.0), axis=0), axis_name
        )
        log_bk = log_bk - jnp.where(total > 0, top + jnp.log(jnp.where(total > 0, total, 1.0)), 0.0)[None]
        log_bk = jax.nn.log_softmax(jnp.where(some, log_bk, 0.0), axis=1)
    return jnp.where(some, jnp.exp(log_bk), 0.0)
