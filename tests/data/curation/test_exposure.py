"""What a run is said to have seen is what its batches brought."""

import numpy as np

from medjax.data import DataConfig, Dataset
from medjax.data.curation.exposure import draws, find
from medjax.data.curation.inspection import scan


def test_draws_are_those_of_the_batches(phantom_dir):
    dataset = Dataset.open(DataConfig(dir=str(phantom_dir), modalities={"labs": {}}, threads=0))
    patient = next(scan(phantom_dir, dataset.manifest, "train"))["id/patient"]
    where = find(phantom_dir, dataset.manifest, "patient", [patient])
    assert where["train"] and not where["test"] and not where["validation"]
    batches = dataset.train(seed=3, start=0, batch=8)
    seen = np.concatenate([next(batches).ids["patient"] for _ in range(40)])
    at = np.flatnonzero((seen == patient).all(1))
    assert len(at) > len(where["train"])  # in several epochs
    np.testing.assert_array_equal(draws(dataset, 3, 8, where["train"], 320), at)
    assert draws(dataset, 3, 8, where["train"], int(at[0])).size == 0
    assert draws(dataset, 3, 8, [], 320).size == 0
