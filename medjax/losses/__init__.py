"""Contrastive objectives as pure functions of embeddings, exact on any mesh. `get(name)` makes one."""

import dataclasses

from medjax.errors import UserError, check_choice, suggest
from medjax.losses.base import Group, Loss, Term
from medjax.losses.decomposition import OrthogonalDecomposition
from medjax.losses.decoupled import DHNNCE, Decoupled
from medjax.losses.distillation import SimilarityDistillation
from medjax.losses.geometry import Alignment, CrossUniformity, Uniformity
from medjax.losses.gloria_local import GloriaLocal
from medjax.losses.gram import Gram
from medjax.losses.info_nce import ConVIRT, InfoNCE, MoRE
from medjax.losses.mgca import MGCAInstance, MGCAPrototype, MGCAToken
from medjax.losses.mil_nce import MILNCE
from medjax.losses.mp_nce import MPNCE
from medjax.losses.multi_positive import MultiPositive
from medjax.losses.multi_view import MVDHEL, MVInfoNCE
from medjax.losses.objective import Objective, Scale, Settings
from medjax.losses.patch_transport import PatchTransport
from medjax.losses.pc_align import PCAlign
from medjax.losses.prototypes import PrototypeContrast
from medjax.losses.reduce import IMPLEMENTATIONS, Plan, reduce_pairs
from medjax.losses.relations import Relation
from medjax.losses.sepclr import SepCLR
from medjax.losses.sigmoid import Sigmoid
from medjax.losses.soft_target import SoftTarget
from medjax.losses.symile import Symile
from medjax.losses.tokens import Tokens
from medjax.losses.triplet import Triplet

__all__ = ["OBJECTIVES", "Group", "Loss", "Objective", "Plan", "Scale", "Term", "Tokens", "get", "reduce_pairs"]

OBJECTIVES = {
    "alignment": Alignment,
    "convirt": ConVIRT,
    "cross_uniformity": CrossUniformity,
    "decoupled": Decoupled,
    "dhn_nce": DHNNCE,
    "gloria_local": GloriaLocal,
    "gram": Gram,
    "info_nce": InfoNCE,
    "mgca_instance": MGCAInstance,
    "mgca_prototype": MGCAPrototype,
    "mgca_token": MGCAToken,
    "mil_nce": MILNCE,
    "more": MoRE,
    "mp_nce": MPNCE,
    "multi_positive": MultiPositive,
    "mv_dhel": MVDHEL,
    "mv_infonce": MVInfoNCE,
    "orthogonal_decomposition": OrthogonalDecomposition,
    "patch_transport": PatchTransport,
    "pc_align": PCAlign,
    "prototype_contrast": PrototypeContrast,
    "sepclr": SepCLR,
    "sigmoid": Sigmoid,
    "similarity_distillation": SimilarityDistillation,
    "soft_target": SoftTarget,
    "symile": Symile,
    "triplet": Triplet,
    "uniformity": Uniformity,
}


def get(
    name: str,
    *,
    modalities: tuple[str, ...] | None = None,
    impl: str = "auto",
    block: int = 1024,
    same_patient: str = "ignore",
    same_text: str = "ignore",
    same_group: str = "ignore",
    missing: str = "mask",
    **options,
) -> Objective:
    """Makes the objective `name`.

    Args:
      name: one of `OBJECTIVES`.
      modalities: which embeddings it uses, in this order. Default: all it is given, sorted by name.
      impl: "dense" stores the similarity matrix; "gather" and "ring" never do, and differ over a mesh in gathering
        the keys or passing them round; "auto" chooses by size. All give the same value and gradient.
      block: rows of a tile for "gather" and "ring".
      same_patient, same_group, same_text: pairs of one patient, of one scan or study, or of identical text, are
        ordinary negatives ("ignore"), kept out of the negatives ("mask") or further right answers ("positive"); the
        last two need `ids` in the call.
      missing: "mask" or "neutral", see the objective.
      **options: the objective's own; see its class.

    Returns:
      A pure function of embeddings; see `Objective.__call__`.

    Raises:
      UserError: an unknown name or option, with the valid ones.
    """
    check_choice("objective", name, OBJECTIVES)
    check_choice("impl", impl, IMPLEMENTATIONS)
    check_choice("missing", missing, ("mask", "neutral"))
    if block < 1:
        raise UserError(f"block must be a positive number of rows, got {block}")
    formula = OBJECTIVES[name]
    fields = dataclasses.fields(formula)
    valid = [f.name for f in fields]
    for option in options:
        if option not in valid:
            shared = ["modalities", "impl", "block", "same_patient", "same_group", "same_text", "missing"]
            raise UserError(f"objective {name!r} has no option {option!r}; {suggest(option, [*valid, *shared])}")
    for f in fields:
        if f.default is dataclasses.MISSING and f.name not in options:
            raise UserError(f"objective {name!r} requires {f.name}=")
    settings = Settings(impl, block, Relation(same_patient, same_text, same_group), missing)
    objective = Objective(name, formula(**options), tuple(modalities) if modalities else None, settings)
    if modalities:
        objective.check(objective.modalities)
    return objective
