"""From a source to a data set on disk: plan, shards, manifest; and changes of one that is there."""
