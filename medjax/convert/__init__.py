"""Weights between medjax's Flax trees and PyTorch layouts, in both directions by the same tables."""

from medjax.convert.pretrained import load_pretrained

__all__ = ["load_pretrained"]
