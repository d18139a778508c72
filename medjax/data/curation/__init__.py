"""Looking into data sets: what they hold, what is there twice, what a run has seen."""
