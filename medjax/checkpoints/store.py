"""Checkpoints of a run: saved with Orbax, sealed with checksums, and verified before anything trusts them."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers

from medjax.checkpoints import integrity
from medjax.errors import UserError

log = logging.getLogger("medjax")


class CheckpointStore:
    """The checkpoints in one folder, a sub-folder a step, each with "params", "rest" and "meta".

    read_only: for readers, who must change nothing while a run may still be writing.
    """

    def __init__(self, directory: str | Path, keep: int = 2, read_only: bool = False):
        self._directory = Path(directory).absolute()
        self._keep, self._read_only = keep, read_only
        self._manager = None if read_only else self._open()

    def _open(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.LatestN(self._keep),
            enable_async_checkpointing=False,
            cleanup_tmp_directories=True,
        )
        return ocp.CheckpointManager(self._directory, options=options)

    def save(self, step: int, params: Any, rest: Any, meta: Mapping[str, Any]) -> None:
        """Saves one step and seals it; all processes must call it. meta: JSON. A step that is there is left alone."""
        if step in self._manager.all_steps():
            return
        items = ocp.args.Composite(
            params=ocp.args.StandardSave(params), rest=ocp.args.StandardSave(rest), meta=ocp.args.JsonSave(dict(meta))
        )
        self._manager.save(step, args=items, force=True)
        self._manager.wait_until_finished()
        if jax.process_index() == 0:
            integrity.seal(self._directory / str(step))
        _barrier("medjax-seal")

    def latest_valid_step(self) -> int | None:
        """The newest step whose files are all as they were sealed; None if there is none.

        A damaged newer one is moved to the folder "damaged", and said so in the log; a reader passes over it.
        """
        found = None
        for step in reversed(self.steps()):
            folder = self._directory / str(step)
            wrong = integrity.damage(folder)
            if wrong is None:
                found = step
                break
            if self._read_only:
                continue
            log.warning("checkpoint %s is damaged (%s); it is kept in %s", step, wrong, self._directory / "damaged")
            if jax.process_index() == 0:
                aside = self._directory / "damaged"
                aside.mkdir(exist_ok=True)
                folder.rename(aside / f"{step}-{int(time.time())}")
        _barrier("medjax-valid")
        if self._manager is not None:
            self._manager.reload()
        return found

    def restore(self, step: int, params: Any, rest: Any) -> tuple[Any, Any, dict[str, Any]]:
        """`(params, rest, meta)` of a step in the shapes, dtypes and shardings of these abstract trees.

        Raises:
          UserError: the checkpoint is damaged, or holds other parameters than the configuration asks for.
        """
        self._check(step)
        self._check_dtypes(step, "params", params)
        self._check_dtypes(step, "rest", rest)
        items = {"params": ocp.args.StandardRestore(params), "rest": ocp.args.StandardRestore(rest)}
        try:
            found = self._manager.restore(step, args=ocp.args.Composite(**items, meta=ocp.args.JsonRestore()))
        except ValueError as error:
            raise UserError(
                f"checkpoint {self._directory / str(step)} does not fit the configuration, which must be the run's: "
                f"{' '.join(str(error).split())[:400]}"
            ) from None
        return found["params"], found["rest"], found["meta"]

    def meta(self, step: int) -> dict[str, Any]:
        """What was saved beside the arrays."""
        return ocp.Checkpointer(ocp.JsonCheckpointHandler()).restore(self._directory / str(step) / "meta")

    def restore_params(self, step: int) -> tuple[Any, dict[str, Any]]:
        """`(params, meta)` as arrays on the first local device, whatever mesh they were saved from.

        Raises:
          UserError: the checkpoint is damaged.
        """
        self._check(step)
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        target = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), self._stored(step, "params")
        )
        folder = self._directory / str(step)
        params = ocp.StandardCheckpointer().restore(folder / "params", target)
        return params, self.meta(step)

    def restore_rest(self, step: int, name: str) -> Any:
        """One entry of "rest", as `restore_params` restores; empty where the checkpoint has none.

        Raises:
          UserError: the checkpoint is damaged.
        """
        self._check(step)
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        stored = {name: self._stored(step, "rest").get(name, {})}
        target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), stored)
        if not jax.tree.leaves(target):
            return {}
        how = jax.tree.map(lambda _: ocp.ArrayRestoreArgs(sharding=here), target)
        args = ocp.args.PyTreeRestore(item=target, restore_args=how, partial_restore=True)
        return ocp.PyTreeCheckpointer().restore(self._directory / str(step) / "rest", args=args)[name]

    def _stored(self, step: int, item: str) -> Any:
        """Shape and dtype of every stored array."""
        return ocp.PyTreeCheckpointHandler().metadata(self._directory / str(step) / item).tree

    def _check_dtypes(self, step: int, item: str, target: Any) -> None:
        # Orbax casts silently where the dtypes differ.
        stored = _dtypes(self._stored(step, item))
        for name, want in _dtypes(target).items():
            if (have := stored.get(name)) is not None and have != want:
                raise UserError(f"{item}/{name} is {have} in the checkpoint and {want} in the configuration")

    def steps(self) -> list[int]:
        """Steps that are on disk, sound or not."""
        if self._manager is None:
            return sorted(int(p.name) for p in self._directory.iterdir() if p.name.isdigit())
        self._manager.reload()
        return sorted(self._manager.all_steps())

    def close(self) -> None:
        """Releases what the manager holds."""
        if self._manager is not None:
            self._manager.close()

    def _check(self, step: int) -> None:
        folder = self._directory / str(step)
        if not folder.is_dir():
            raise UserError(f"no checkpoint {folder}; there are steps {self.steps() or 'none'}")
        if wrong := integrity.damage(folder):
            raise UserError(f"checkpoint {folder} is damaged ({wrong}); use another step of {self.steps()}")


def _dtypes(tree: Any) -> dict[str, Any]:
    """By path; a named tuple of the optimizer and the dict that is stored of it have the same paths."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x.dtype for path, x in leaves}


def _barrier(name: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
