"""Bad input to an objective: one line that names the offender and the fix."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from losses_reference import id_rows, unit_rows

from medjax import losses
from medjax.errors import UserError
from medjax.losses import OBJECTIVES
from medjax.sharding import MeshConfig, make_mesh


@pytest.fixture
def z(rng):
    return unit_rows(rng, 6, 4, "abc")


def call(z, name="info_nce", options=None, **inputs):
    return losses.get(name, **(options or {}))(z, **{"logit_scale": 1.0, **inputs})


@pytest.mark.parametrize(
    ("name", "options", "named"),
    [
        ("info_nec", {}, ["info_nec", "did you mean 'info_nce'", "symile"]),
        ("info_nce", {"weigths": (1.0,)}, ["weigths", "did you mean 'weights'"]),
        ("info_nce", {"anchor": "a"}, ["anchor", "valid"]),
        ("info_nce", {"impl": "rings"}, ["rings", "did you mean 'ring'"]),
        ("info_nce", {"block": 0}, ["block", "0"]),
        ("info_nce", {"missing": "neutrl"}, ["neutrl", "did you mean 'neutral'"]),
        ("info_nce", {"same_patient": "masked"}, ["masked", "did you mean 'mask'"]),
        ("info_nce", {"same_text": "drop"}, ["same_text", "drop"]),
        ("info_nce", {"modalities": ("a",)}, ["info_nce", "two"]),
        ("info_nce", {"modalities": ("a", "b"), "pairs": (("a", "x"),)}, ["'x'", "valid: a, b"]),
        ("info_nce", {"modalities": ("a", "b", "c"), "weights": (1.0,)}, ["1 weights", "pairs"]),
        ("info_nce", {"modalities": ("a", "b"), "reduction": "max"}, ["max", "mean, sum"]),
        ("gram", {}, ["gram", "anchor="]),
        ("gram", {"anchor": "imgae", "modalities": ("image", "text")}, ["imgae", "did you mean 'image'"]),
        ("gram", {"anchor": "a", "modalities": ("a",)}, ["gram", "one other"]),
        ("gram", {"anchor": "a", "modalities": ("a", "b"), "label_smoothing": 1.0}, ["label_smoothing", "1.0"]),
        ("symile", {"negatives": "n_cubed", "modalities": ("a", "b", "c")}, ["negatives", "n_cubed"]),
        ("symile", {"modalities": ("a", "b")}, ["three", "info_nce"]),
        ("symile", {"mip_scale": "nono", "modalities": ("a", "b", "c")}, ["mip_scale", "did you mean 'none'"]),
    ],
)
def test_wrong_options_are_named_with_the_valid_ones(name, options, named):
    with pytest.raises(UserError) as error:
        losses.get(name, **options)
    assert "\n" not in str(error.value)
    for piece in named:
        assert piece in str(error.value)


@pytest.mark.parametrize("name", sorted(set(OBJECTIVES) - {"uniformity"}))  # which is of a single modality
def test_options_are_checked_against_the_embeddings_too(rng, name):
    options = {"anchor": "zzz"} if name == "gram" else {}
    with pytest.raises(UserError, match=name):
        call(unit_rows(rng, 4, 4, "a"), name, options, key=jax.random.key(0))


def test_absent_embeddings_are_named_with_the_nearest(z):
    with pytest.raises(UserError, match=r"no embeddings of 'images'.*did you mean 'image'"):
        call({"image": z["a"], "text": z["b"]}, options={"modalities": ("images", "text")})


def test_embeddings_of_different_shapes_are_listed(z):
    with pytest.raises(UserError, match=r"'b': \(6, 3\)"):
        call({"a": z["a"], "b": z["b"][:, :3]})
    with pytest.raises(UserError, match=r"\[b, E\]"):
        call({m: x[None] for m, x in z.items()})


def test_masks_of_wrong_shape_or_type_are_named(z):
    ok = np.ones(6, bool)
    with pytest.raises(UserError, match=r"present\['b'\] must be bool\[6\]"):
        call(z, present={"a": ok, "b": ok[:5], "c": ok})
    with pytest.raises(UserError, match=r"present\['c'\] must be bool\[6\], got float32"):
        call(z, present={"a": ok, "b": ok, "c": ok.astype(np.float32)})


def test_symile_without_a_key_asks_for_one(z):
    with pytest.raises(UserError, match=r"symile.*key="):
        call(z, "symile")


def test_symile_has_no_second_answers(z):
    ids = {"patient": id_rows(np.arange(6))}
    with pytest.raises(UserError, match="symile has no second right answers"):
        call(z, "symile", {"same_patient": "positive"}, key=jax.random.key(0), ids=ids)


@pytest.mark.parametrize("ids", [None, {"text": np.ones((6, 2), np.uint32)}])
def test_policies_without_ids_ask_for_them(z, ids):
    with pytest.raises(UserError, match=r"same_patient='mask' needs ids\['patient'\]"):
        call(z, options={"same_patient": "mask"}, ids=ids)


def test_place_on_the_mesh_must_be_said(z):
    mesh = make_mesh(MeshConfig(replica=2, fsdp=1), jax.devices()[:2])
    with jax.set_mesh(mesh):
        with pytest.raises(UserError, match="batch_axes"):
            call(z)
        replicated = call(z, batch_axes=()).mean()
    np.testing.assert_allclose(replicated, call(z).mean(), rtol=1e-6)
    with pytest.raises(UserError, match="not both"):
        call(z, axis_name="replica", batch_axes=("replica",))

    @partial(jax.shard_map, mesh=mesh, in_specs=jax.P("replica"), out_specs=jax.P())
    def unsaid(z):
        return call(z).mean()

    with pytest.raises(UserError, match="axis_name="):
        unsaid({m: jnp.asarray(x) for m, x in z.items()})


def test_score_of_a_target_the_objective_does_not_know_is_zero(z):
    objective = losses.get("info_nce", modalities=("a", "b"))
    assert not np.any(objective.score({"a": z["a"]}, z["c"], "c"))
    assert not np.any(objective.score({"c": z["c"]}, z["b"], "b", present={"c": np.ones(6, bool)}))
