"""Which part of an input an embedding owes its similarity to something to."""
