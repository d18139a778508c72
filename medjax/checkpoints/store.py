"""Checkpoints of a run: saved with Orbax, sealed with checksums, and verified before anything trusts them."""

import json
import logging
import os
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_utils import construct_restore_args

from medjax.checkpoints import fit, folders, integrity
from medjax.checkpoints.agreement import agreed, anywhere
from medjax.checkpoints.mirror import place
from medjax.errors import StorageError, UserError
from medjax.storage import is_remote, read_bytes

log = logging.getLogger("medjax")

_NONE = -1


class CheckpointStore:
    """The checkpoints in one folder, a sub-folder a step, each with "params", "rest" and "meta".

    keep: so many of the latest stay, and keep_every: all multiples of it (0: none); the others are deleted once a newer
    one is sealed. background: training may go on while a step is written; `wait` then tells how it ended. read_only:
    for readers, who must change nothing while a run may still be writing.

    With several processes all must make the same calls; process 0 verifies, seals and deletes for all.
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        keep: int = 2,
        keep_every: int = 0,
        read_only: bool = False,
        background: bool = False,
    ):
        if keep < 1:
            raise UserError(f"config.train.keep={keep} would keep no checkpoint to go on from; use at least 1")
        path = epath.Path(place(directory))
        self._directory = path if is_remote(path) else path.absolute()
        self._keep, self._keep_every = keep, keep_every
        self._read_only, self._background = read_only, background
        self._saver: ocp.AsyncCheckpointer | None = None  # made by the first save
        self._thread = ThreadPoolExecutor(1, "medjax-checkpoint")
        self._running: tuple[int, Future] | None = None
        self._sound: tuple[int, Any] = (_NONE, None)  # the step verified last, and its fingerprint before that
        self._unsound: set[int] = set()

    def _open(self) -> ocp.AsyncCheckpointer:
        # Two stores may be saving at once, and their processes must not meet at each other's barriers.
        apart = ocp.options.MultiprocessingOptions(
            barrier_sync_key_prefix=f"{self._directory.parent.name}-{self._directory.name}"
        )
        handler = ocp.CompositeCheckpointHandler(composite_options=ocp.CompositeOptions(multiprocessing_options=apart))
        return ocp.AsyncCheckpointer(handler, multiprocessing_options=apart)

    def save(self, step: int, params: Any, rest: Any, meta: Mapping[str, Any]) -> None:
        """Saves one step and seals it; waits for the save before. meta: JSON. A step that is there is left alone.

        The arrays may be donated to the next step as soon as this returns.

        Raises:
          StorageError: this save, or the one before in the background, failed; earlier checkpoints are as they were.
        """
        self.wait()
        if agreed(lambda: self._occupied(step)):
            return
        items = ocp.args.Composite(
            params=ocp.args.StandardSave(params),
            rest=ocp.args.StandardSave(rest),
            meta=ocp.args.JsonSave(json.loads(json.dumps(dict(meta)))),  # a copy: the caller's may change
        )
        self._saver = self._saver or self._open()
        try:
            self._saver.save(self._folder(step), args=items)
        except OSError as error:
            raise self._failed(step, error) from error
        self._running = step, self._thread.submit(self._finish, step)
        if not self._background:
            self.wait()

    def wait(self) -> None:
        """Waits until the running save, if any, is sealed.

        Raises:
          StorageError: it failed, here or in another process; earlier checkpoints are as they were.
        """
        if self._running is None:
            return
        (step, running), self._running = self._running, None
        error = running.exception()
        if isinstance(error, jax.errors.JaxRuntimeError):
            raise error
        if not anywhere(error is not None):
            return
        if jax.process_index() == 0:
            folders.clean(self._directory)  # a full disk needs the room
        raise self._failed(step, error or "another process failed to write its part") from error

    def _finish(self, step: int) -> None:
        """In the background, when the bytes are on their way."""
        self._saver.wait_until_finished()
        if jax.process_index() == 0:
            integrity.seal(self._folder(step))
            folders.prune(self._directory, step, self._keep, self._keep_every)

    def _failed(self, step: int, error: object) -> StorageError:
        cause = " ".join(str(error).split()) or type(error).__name__
        if len(cause) > 300:  # TensorStore says what it was about first, and what failed last
            cause = f"{cause[:100]} ... {cause[-200:]}"
        return StorageError(
            f"checkpoint {self._folder(step)} could not be saved: {cause}; earlier ones are sound. Make room or mend "
            "the storage, and run the same command again"
        )

    def _occupied(self, step: int) -> int:
        folders.clean(self._directory)
        folder = self._folder(step)
        if (folder / integrity.FILE).exists() and step not in self._unsound:
            return 1
        if folder.exists():
            folders.set_aside(self._directory, step, "is damaged or was not finished")
        if folder.exists():
            raise StorageError(f"{folder} is damaged and in the way of a new save; move it away yourself")
        self._unsound.discard(step)
        return 0

    def latest_valid_step(self) -> int | None:
        """The newest step whose files are all as they were sealed; None if there is none.

        A damaged newer one is moved to the folder "damaged", and said so in the log; a reader passes over it.
        """
        self.wait()
        found = agreed(self._newest_sound)
        return None if found == _NONE else found

    def _newest_sound(self) -> int:
        if not self._read_only:
            folders.clean(self._directory)
        for step in reversed(self.steps()):
            wrong = self._damage(step)
            if wrong is None:
                return step
            self._unsound.add(step)
            if not self._read_only:
                folders.set_aside(self._directory, step, f"is damaged ({wrong})")
        return _NONE

    def set_aside_after(self, step: int, why: str) -> int:
        """Moves newer steps to the folder "damaged", and returns how many there were."""
        self.wait()

        def move() -> int:
            newer = [s for s in self.steps() if s > step]
            for s in newer:
                folders.set_aside(self._directory, s, f"is set aside ({why})")
            return len(newer)

        return agreed(move)

    def restore(self, step: int, params: Any, rest: Any, cast: bool = False) -> tuple[Any, Any, dict[str, Any]]:
        """`(params, rest, meta)` of a step in the shapes, dtypes and shardings of these abstract trees, whatever mesh
        and number of processes it was saved from.

        cast: convert floating-point numbers where the dtype differs.

        Raises:
          UserError: the checkpoint is damaged, or holds something else than the configuration asks for.
        """
        self._check(step)
        self._check_fit(step, {"params": params, "rest": rest}, cast)
        # "Partial", as trees may differ in what is empty: the leaves were compared above.
        items = {
            name: ocp.args.PyTreeRestore(tree, restore_args=construct_restore_args(tree), partial_restore=True)
            for name, tree in (("params", params), ("rest", rest))
        }
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
            found = reader.restore(self._folder(step), args=ocp.args.Composite(**items))
        return found["params"], found["rest"], self.meta(step)

    def meta(self, step: int) -> dict[str, Any]:
        """What was saved beside the arrays."""
        return json.loads(read_bytes(self._folder(step) / "meta" / "metadata"))

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
        with ocp.StandardCheckpointer() as reader:
            params = reader.restore(self._folder(step) / "params", target)
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
        with ocp.PyTreeCheckpointer() as reader:
            return reader.restore(self._folder(step) / "rest", args=args)[name]

    def steps(self) -> list[int]:
        """Steps that are on disk, sound or not."""
        return folders.steps(self._directory)

    def close(self) -> None:
        """Waits for the running save, and releases what the store holds.

        Raises:
          StorageError: as `wait`.
        """
        try:
            self.wait()
        finally:
            self._thread.shutdown()
            if self._saver is not None:
                self._saver.close()

    def _folder(self, step: int) -> epath.Path:
        return self._directory / str(step)

    def _stored(self, step: int, item: str) -> Any:
        """Shape and dtype of every stored array."""
        return ocp.PyTreeCheckpointHandler().metadata(self._folder(step) / item).tree

    def _check_fit(self, step: int, wanted: dict[str, Any], cast: bool) -> None:
        stored = {item: self._stored(step, item) for item in wanted}
        problems = fit.differences(stored, wanted, cast)
        if not problems:
            return
        what = "the configuration, which must be the run's"
        if fit.only_optimizer_differs(stored, wanted):
            what = "config.optimizer, which must be the run's"
        raise UserError(f"checkpoint {self._folder(step)} does not fit {what}: {'; '.join(problems)}; {fit.WAY_OUT}")

    def _check(self, step: int) -> None:
        self.wait()
        folder = self._folder(step)
        if not folder.exists():
            raise UserError(f"no checkpoint {folder}; there are steps {self.steps() or 'none'}")
        wrong: list[str | None] = [None]

        def verify() -> int:
            wrong[0] = self._damage(step)
            return int(wrong[0] is not None)

        if agreed(verify):
            cause = wrong[0] or "as process 0 found"
            raise UserError(f"checkpoint {folder} is damaged ({cause}); use another step of {self.steps()}")

    def _damage(self, step: int) -> str | None:
        """What is wrong with a step; one that was verified last and has not been written to since is not read again."""
        folder = self._folder(step)
        before = None if integrity.incomplete(folder) else integrity.fingerprint(folder)
        if before is not None and self._sound == (step, before):
            return None
        then, wrong = time.monotonic(), integrity.damage(folder)
        if wrong is None:
            self._sound = step, before
            size = sum(size for _, (size, _) in before or ())
            log.info("checkpoint %s: %.2f GiB verified in %.1f s", folder, size / 2**30, time.monotonic() - then)
        return wrong
