"""A look at the machines before a long run: what is there, whether it computes right, how fast, and what to do."""

from medjax.training.doctor.findings import Check, Finding, Status, examine, merge, page

__all__ = ["Check", "Finding", "Status", "examine", "merge", "page"]
