"""What a probe is fitted on: the embeddings of each modality and of all together, and the inputs they came from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from absl import flags

from medjax.bin.evaluation import Subject
from medjax.errors import UserError
from medjax.evaluation.embeddings import EmbeddingTable
from medjax.evaluation.probe import Features, joined_features, raw_features
from medjax.evaluation.recipes import NORMALISATIONS, RECIPES, Recipe

_NORMALISE = flags.DEFINE_enum(
    "normalise",
    "",
    ["", *NORMALISATIONS],
    "Features by the spread of the training split, or to unit length; default: unit length for knn, else by spread.",
)
SPLITS = ("train", "validation", "test")
ALL = "all together"
READS = "Reports are probed here: what is written in them is read, not found."


def chosen_recipe(name: str) -> Recipe:
    """The recipe of --recipe, with the features of --normalise.

    Raises:
      UserError: k-NN compares by cosine, and takes unit length alone.
    """
    recipe = RECIPES[name]
    if recipe.name == "knn" and _NORMALISE.value == "standardise":
        raise UserError("--recipe=knn compares by cosine, which takes features of unit length; leave --normalise out")
    return replace(recipe, normalise=_NORMALISE.value or recipe.normalise)


def probed(subject: Subject) -> tuple[str, ...]:
    """The modalities that are probed: all but text, or text where there is nothing else.

    Raises:
      UserError: another split than test was asked for.
    """
    if subject.split != "test":
        raise UserError("a probe is fitted on train, chosen on validation and scored on test; leave --split out")
    return tuple(m for m in subject.modalities if m != "text") or ("text",)


def feature_sets(modalities: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Each modality alone, and all of several together."""
    return {m: (m,) for m in modalities} | ({ALL: tuple(modalities)} if len(modalities) > 1 else {})


@dataclass(frozen=True)
class Probing:
    """What all parts of the program share. tables: `{"trained" and, where there is an encoder, "untrained": {split:
    table}}`."""

    subject: Subject
    modalities: tuple[str, ...]
    recipe: Recipe
    tables: Mapping[str, Mapping[str, EmbeddingTable]]

    @classmethod
    def create(cls, subject: Subject, recipe: Recipe) -> "Probing":
        """Embeds all splits; see `probed` for what it raises."""
        modalities, untrained = probed(subject), subject.untrained()
        sources = {"trained": subject} | ({"untrained": untrained} if untrained else {})
        tables = {n: {split: s.table(split) for split in SPLITS} for n, s in sources.items()}
        return cls(subject, modalities, recipe, tables)

    @property
    def sets(self) -> dict[str, tuple[str, ...]]:
        """See `feature_sets`."""
        return feature_sets(self.modalities)

    def features(self, used: Sequence[str]) -> dict[str, dict[str, Features]]:
        """The embeddings of these modalities, of every source in every split."""
        return {n: joined(tables, used, self.recipe) for n, tables in self.tables.items()}


def joined(tables: Mapping[str, EmbeddingTable], used: Sequence[str], recipe: Recipe) -> dict[str, Features]:
    """The embeddings of these modalities in every split."""
    return {split: joined_features(t, used, recipe.flags) for split, t in tables.items()}


def raw_inputs(subject: Subject, sets: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Features]]:
    """The preprocessed inputs of every set of modalities."""
    batches = {split: list(subject.batches(split)) for split in SPLITS}
    return {what: raw_features(batches, used) for what, used in sets.items()}
