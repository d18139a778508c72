"""One page from any set of results: gathered, read, compared and told."""
