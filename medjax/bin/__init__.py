"""One absl binary a file; `python -m medjax.bin.NAME --help` lists its flags."""
