"""Scores of other programs' outputs: pure functions of what they made and what they should have made."""
