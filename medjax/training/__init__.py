"""The training loop and what it is made of; it knows methods only by their contract."""
