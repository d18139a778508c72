"""The shards of a build written by Apache Beam where one machine is too small: on Dataflow, Flink, Spark or its own.

Each shard is one element, written by the same function as in a local build, and so with the same bytes. All workers
must see the folder of the data set and those of the source's files under the same paths (a network file system).
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from medjax.data.building.shards import RECEIPT, Encoder, Receipt, ShardTask, write_shard
from medjax.errors import UserError


def beam_engine(options: Sequence[str] = ()) -> Callable[..., Iterator[Receipt]]:
    """An engine for `build_dataset`. options: of Beam's pipeline, such as "--runner=FlinkRunner".

    Raises:
      UserError: Apache Beam is not installed.
    """
    _beam()
    return partial(_run, tuple(options))


def _beam():
    try:
        import apache_beam
    except ImportError:
        raise UserError(
            "--engine=beam needs Apache Beam; pip install 'medjax[beam]', in an environment of its own"
        ) from None
    return apache_beam


def _run(
    options: Sequence[str],
    encoder: Encoder,
    tasks: Sequence[ShardTask],
    allowed: int,
    workers: int,
    tick: Callable[[int], None],
) -> Iterator[Receipt]:
    """Receipts when all is done. What was done before a failure is kept, as in a local build.

    `allowed` is looked at afterwards, by the caller; how many workers there are is said in the options of the runner.
    """
    from apache_beam.options.pipeline_options import PipelineOptions

    beam = _beam()
    with beam.Pipeline(options=PipelineOptions(list(options))) as pipeline:
        _ = (
            pipeline
            | "Shards" >> beam.Create(tasks)
            | "Spread" >> beam.Reshuffle()  # so that shards are not fused into one worker's bundle
            | "Write" >> beam.Map(_write, encoder)
        )
    tick(sum(len(task.studies) for task in tasks))
    for task in tasks:
        yield Receipt.load(encoder.directory / f"{task.stem}{RECEIPT}")


def _write(task: ShardTask, encoder: Encoder) -> None:
    """Writes a shard; its receipt stays beside it."""
    write_shard(encoder, task, len(task.studies), lambda: None)
