"""Symile against its formula in float64, its authors' package, and the exclusive-or that no pair can see."""

import jax
import jax.numpy as jnp
import losses_reference as reference
import numpy as np
import optax
import pytest
from losses_reference import assert_close, numeric_gradient, some_present, symile_orders, unit_rows

from medjax import losses

SCALE = 20.0
KEY = jax.random.key(3)
TOLERANCE = 1e-5  # float32 logits near 20


def check_value_and_gradient(z, present=None, **options):
    objective = losses.get("symile", **options)

    def call(z, scale):
        return objective(z, logit_scale=scale, present=present, key=KEY).mean()

    value, (d_z, d_scale) = jax.jit(jax.value_and_grad(call, argnums=(0, 1)))(z, SCALE)
    rows = len(z["a"])
    orders = symile_orders(KEY, len(z), rows)

    def oracle(t):
        return reference.symile({m: t[m] for m in z}, float(t["scale"]), orders, present, **options)

    expected = numeric_gradient(oracle, {**z, "scale": np.array(SCALE)})
    assert_close(value, oracle({**{m: x.astype(np.float64) for m, x in z.items()}, "scale": SCALE}), TOLERANCE)
    assert_close(d_scale, expected.pop("scale"), 1e-4)
    assert_close(d_z, expected, TOLERANCE)


@pytest.mark.parametrize(("modalities", "mip_scale"), [("abc", "none"), ("abcd", "sqrt_d_power")])
def test_value_and_gradient_equal_the_reference(rng, modalities, mip_scale):
    check_value_and_gradient(unit_rows(rng, 6, 4, modalities), mip_scale=mip_scale)


@pytest.mark.parametrize("missing", ["mask", "neutral"])
def test_missing_modalities_equal_the_reference(rng, missing):
    present = some_present(rng, 8, "abc", share=0.8)
    check_value_and_gradient(unit_rows(rng, 8, 4, "abc"), present=present, missing=missing)


def test_equals_the_symile_package_with_the_same_shuffles(rng, monkeypatch):
    package = pytest.importorskip("symile")
    torch = pytest.importorskip("torch")
    z = unit_rows(rng, 10, 6, "abc")
    shuffles = [torch.tensor(order) for anchor in symile_orders(KEY, len(z), 10) for order in anchor]
    monkeypatch.setattr(torch, "randperm", lambda n: shuffles.pop(0))
    given = [torch.tensor(x, requires_grad=True) for x in z.values()]
    theirs = package.Symile("n")(given, torch.tensor(SCALE))
    theirs.backward()
    assert not shuffles

    def call(z):
        return losses.get("symile")(z, logit_scale=SCALE, key=KEY).mean()

    value, gradient = jax.jit(jax.value_and_grad(call))(z)
    assert_close(value, theirs.detach().numpy(), TOLERANCE)
    assert_close(gradient, {m: x.grad.numpy() for m, x in zip(z, given, strict=True)}, TOLERANCE)


def test_neutral_modality_absent_everywhere_gives_the_smaller_problem(rng):
    z = unit_rows(rng, 8, 6, "abcd")
    present = {m: np.full(8, m != "d") for m in z}
    objective = losses.get("symile", missing="neutral", mip_scale="sqrt_d_power")

    def call(z, present=None):
        return objective(z, logit_scale=SCALE, present=present, key=KEY).mean()

    value, gradient = jax.jit(jax.value_and_grad(call))(z, present)
    smaller, smaller_gradient = jax.jit(jax.value_and_grad(call))({m: z[m] for m in "abc"})
    assert_close(value, smaller, 1e-6)
    assert not np.any(gradient.pop("d"))
    assert_close(gradient, smaller_gradient, 1e-6)


def test_rows_in_another_order_have_the_same_expected_loss(rng):
    z, order = unit_rows(rng, 6, 4, "abc"), rng.permutation(6)
    objective = losses.get("symile")
    call = jax.jit(jax.vmap(lambda key, z: objective(z, logit_scale=SCALE, key=key).mean(), in_axes=(0, None)))
    drawn = call(jax.random.split(jax.random.key(1), 3000), z)
    shuffled = call(jax.random.split(jax.random.key(2), 3000), {m: x[order] for m, x in z.items()})
    error = np.hypot(drawn.std(), shuffled.std()) / np.sqrt(3000)
    assert abs(drawn.mean() - shuffled.mean()) < 4 * error
    unaligned = call(jax.random.split(jax.random.key(2), 3000), {**z, "a": z["a"][np.roll(np.arange(6), 1)]})
    assert abs(drawn.mean() - unaligned.mean()) > 20 * error  # what the comparison can resolve


@pytest.mark.parametrize("kind", ["patient", "group"])
def test_tuples_of_one_patient_or_scan_are_no_negatives(rng, kind):
    z = unit_rows(rng, 8, 4, "abc")
    patient = np.array([1, 1, 1, 2, 2, 2, 0, 0])
    objective = losses.get("symile", **{f"same_{kind}": "mask"})
    value = objective(z, logit_scale=SCALE, key=KEY, ids={kind: reference.id_rows(patient)}).mean()
    orders = symile_orders(KEY, 3, 8)
    masked, plain = (reference.symile(z, SCALE, orders, patient=p) for p in (patient, None))
    assert_close(value, masked, TOLERANCE)
    assert abs(masked - plain) > 1e-3


def xor_bits(rng, rows, width):
    x, y = (rng.choice([-1.0, 1.0], (rows, width)).astype(np.float32) for _ in range(2))
    return {"a": x, "b": y, "c": x * y}


def test_exclusive_or_is_found_by_symile_and_by_no_pair(rng):
    z = xor_bits(rng, 64, 64)
    queries = {m: z[m] for m in "ab"}
    best = {}
    for name in ("symile", "info_nce"):
        objective = losses.get(name, modalities=("a", "b", "c"))
        score = np.asarray(objective.score(queries, z["c"], "c"))
        best[name] = np.mean(score.argmax(axis=1) == np.arange(64))
    assert best["symile"] == 1.0
    assert best["info_nce"] < 6 / 64  # chance is 1/64; five hits or more of 64 have a probability of 0.004
    # The answer's product is 64 and those of wrong tuples spread by 8; the shuffle may repeat one aligned tuple.
    assert losses.get("symile")(z, logit_scale=1.0, key=KEY).mean() < 0.05
    assert losses.get("info_nce")(z, logit_scale=1.0).mean() > np.log(64)


def test_training_on_an_exclusive_or_succeeds_with_symile_only(rng):
    """Five bits, as in the paper's synthetic experiment: c = a xor b, linear encoders, b sought from a and c."""
    bits = rng.integers(0, 2, (2, 4000, 5))
    data = {"a": bits[0], "b": bits[1], "c": bits[0] ^ bits[1]}
    data = {m: x.astype(np.float32) for m, x in data.items()}
    every = ((np.arange(32)[:, None] >> np.arange(5)) & 1).astype(np.float32)

    def encode(params, m, x):
        x = x @ params[m]["kernel"] + jnp.broadcast_to(params[m]["bias"], (x.shape[0], 16))
        return x / jnp.linalg.norm(x, axis=1, keepdims=True)

    def accuracy(name):
        objective, optimizer = losses.get(name), optax.adamw(0.1, weight_decay=0.01)

        def draw(*shape):
            return rng.uniform(-(5**-0.5), 5**-0.5, shape).astype(np.float32)

        params = {m: {"kernel": draw(5, 16), "bias": draw(16)} for m in "abc"} | {"log_scale": np.float32(-0.3)}

        def loss(params, key):
            draw_rows, negatives = jax.random.split(key)
            rows = jax.random.randint(draw_rows, (256,), 0, 4000)
            z = {m: encode(params, m, jnp.asarray(data[m])[rows]) for m in "abc"}
            return objective(z, logit_scale=jnp.exp(params["log_scale"]), key=negatives).mean()

        def step(carry, key):
            params, state = carry
            updates, state = optimizer.update(jax.grad(loss)(params, key), state, params)
            return (optax.apply_updates(params, updates), state), None

        train = jax.jit(lambda carry: jax.lax.scan(step, carry, jax.random.split(jax.random.key(1), 150))[0])
        params, _ = train((params, optimizer.init(params)))
        queries = {m: encode(params, m, data[m][:500]) for m in "ac"}
        score = losses.get(name, modalities=("a", "b", "c")).score(queries, encode(params, "b", every), "b")
        answer = (bits[1, :500] << np.arange(5)).sum(axis=1)
        return np.mean(np.asarray(score).argmax(axis=1) == answer)

    assert accuracy("symile") > 0.99
    assert accuracy("info_nce") < 4 / 32  # chance is 1/32, plus the spread of 500 queries


def test_score_is_the_product_of_the_whole_tuple_and_zero_for_a_part(rng):
    z, candidates = unit_rows(rng, 4, 6, "abc"), unit_rows(rng, 5, 6, "x")["x"]
    objective = losses.get("symile", modalities=("a", "b", "c"))
    present = {"a": np.array([1, 1, 0, 1], bool), "b": np.array([1, 0, 1, 1], bool)}
    score = objective.score({m: z[m] for m in "ab"}, candidates, "c", logit_scale=2.0, present=present)
    whole = (present["a"] & present["b"])[:, None]
    assert_close(score, np.where(whole, 2.0 * (z["a"] * z["b"]) @ candidates.T, 0.0), 1e-6)
    assert not np.any(objective.score({"a": z["a"]}, candidates, "c"))


def test_dimension_scaled_product_keeps_the_spread_of_random_tuples(rng):
    spread = []
    for width in (16, 1024):
        z = unit_rows(rng, 60, width, "abc")
        objective = losses.get("symile", modalities=("a", "b", "c"), mip_scale="sqrt_d_power")
        spread.append(np.std(objective.score({m: z[m] for m in "ab"}, z["c"], "c")))
    np.testing.assert_allclose(spread, 1.0, rtol=0.15)  # 3600 products, of which 60 rows are independent
