"""Evaluation: pure metrics, the runners that apply them to embeddings, and reports."""
