"""Weights between medjax's Flax trees and PyTorch layouts, in both directions by the same tables."""
