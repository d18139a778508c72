"""Which record a training example is: data sets of a mixture, groups, schedules; and what could not be used."""
