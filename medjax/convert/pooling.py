"""The pooling that a folder of sentence-transformers describes."""

import dataclasses
import logging
from pathlib import Path

from medjax.convert.files import read_json
from medjax.convert.layout import Layout
from medjax.errors import UserError

log = logging.getLogger("medjax")
_MODES = {"mean_tokens": "mean", "cls_token": "cls", "max_tokens": "max"}


def pooled_as_published(layout: Layout, directory: Path) -> Layout:
    """The layout with the pooling of `1_Pooling/config.json`, where there is one; what follows it is left out.

    Raises:
      UserError: a pooling that we do not have, or several at once.
    """
    path = directory / "1_Pooling" / "config.json"
    if not path.is_file():
        return layout
    config = read_json(path)
    modes = [k.removeprefix("pooling_mode_") for k, on in config.items() if k.startswith("pooling_mode_") and on]
    modes = [config["pooling_mode"]] if isinstance(config.get("pooling_mode"), str) else modes
    pools = [_MODES.get(mode, mode) for mode in modes]
    if len(pools) != 1 or pools[0] not in _MODES.values():
        raise UserError(f"{path} pools by {' and '.join(modes) or 'nothing'}; supported: one of {', '.join(_MODES)}")
    if (directory / "2_Dense").is_dir():
        log.warning("%s: the linear layer after pooling (2_Dense) is left out", directory)
    pooler = "kept" if layout.config.pooler != "none" else "none"
    return dataclasses.replace(layout, config=dataclasses.replace(layout.config, pool=pools[0], pooler=pooler))
