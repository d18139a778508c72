"""How terms, groups and losses average."""

import jax
import jax.numpy as jnp
import pytest

from medjax.losses import Group, Loss, Term


def term(total, count, weight=1.0):
    return Term(jnp.float32(total), jnp.float32(count), weight)


def test_mean_of_a_term_is_over_valid_rows():
    assert term(6, 3).mean() == 2.0
    assert term(0, 0).mean() == 0.0


def test_group_averages_the_means_and_not_the_totals():
    assert Loss.of("x", {"a": term(10, 10), "b": term(3, 1)}).mean() == 2.0


def test_terms_without_rows_leave_the_average_of_the_others():
    alive = {"a": term(4, 2, 3.0), "b": term(6, 1, 1.0)}
    expected = Loss.of("x", alive).mean()
    assert expected == (3 * 2 + 6) / 4
    assert Loss.of("x", {**alive, "dead": term(0, 0, 9.0)}).mean() == expected


def test_sum_reduction_adds_weighted_means():
    assert Loss.of("x", {"a": term(4, 2, 0.5), "b": term(6, 1, 2.0), "dead": term(0, 0)}, "sum").mean() == 13.0


def test_nothing_valid_gives_zero_with_zero_gradient():
    def loss(total):
        return Loss.of("x", {"a": Term(total, jnp.float32(0))}).mean()

    value, gradient = jax.value_and_grad(loss)(jnp.float32(0))
    assert (value, gradient) == (0.0, 0.0)


def test_sum_of_losses_is_the_weighted_sum_of_their_means():
    first = Loss.of("info_nce", {"a": term(4, 2), "b": term(9, 3)})
    second = Loss.of("symile", {"c": term(5, 1)}, "sum")
    both = Loss.sum({"x": (1.0, first), "y": (0.25, second)})
    assert both.mean() == first.mean() + 0.25 * second.mean()
    assert set(both.groups) == {"x", "y"}
    again = Loss.sum({"z": (2.0, both)})
    assert again.mean() == 2.0 * both.mean()
    assert set(again.groups) == {"z/x", "z/y"}


def test_metrics_name_every_objective_and_term():
    loss = Loss({"x": Group({"a": term(4, 2), "b": term(9, 3)}, weight=7.0), "y": Group({"c": term(5, 1)})})
    assert {k: float(v) for k, v in loss.metrics().items()} == {"x": 2.5, "x/a": 2.0, "x/b": 3.0, "y": 5.0}


def test_losses_pass_through_jit_unchanged():
    loss = Loss.of("x", {"a": term(4, 2, 0.5), "b": term(6, 1, 2.0)}, "sum")
    through = jax.jit(lambda x: x)(loss)
    assert jax.tree.structure(through) == jax.tree.structure(loss)
    assert through.mean() == loss.mean()


def test_gradient_of_a_mean_is_its_share_of_the_count():
    def loss(total):
        return Loss.of("x", {"a": Term(total, jnp.float32(4)), "b": term(0, 0)}).mean()

    assert jax.grad(loss)(jnp.float32(3)) == pytest.approx(0.25)
