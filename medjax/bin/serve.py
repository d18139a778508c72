"""A page to search an embedding index with: python -m medjax.bin.serve --index=DIR --workdir=RUN.

The index is a folder that medjax.bin.embed wrote; studies are found by text, a picture, an ECG, several of them
together, or another study, and filtered by split and finding. New inputs need the encoder that made the index
(--workdir or --export); without it there are neighbours of studies and filters. Pictures, ECGs and texts are shown from
the data set, unless it is marked sensitive. The page asks for nothing from elsewhere and is meant for this machine; on
another --host whoever knows the token may use it, over a connection that is not encrypted.
"""

import logging
import secrets
import socket

from absl import flags

from medjax.bin import cli
from medjax.bin.serve_guard import Guard, is_loopback
from medjax.bin.serve_http import Server
from medjax.bin.serve_index import Service
from medjax.data import DataConfig, Dataset
from medjax.errors import UserError
from medjax.evaluation import store
from medjax.methods.encoder import Encoder, load_run
from medjax.methods.exported import load_export

_INDEX = flags.DEFINE_string("index", None, "Folder written by medjax.bin.embed.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run that made the index, to search by new inputs.")
_EXPORT = flags.DEFINE_string("export", None, "In place of --workdir: a folder written by medjax.bin.export.")
_DATA = flags.DEFINE_string("data", "", "Data set that was embedded, to show studies; default: that of the run.")
_HOST = flags.DEFINE_string("host", "127.0.0.1", "Address to listen on; one that others can reach demands a token.")
_PORT = flags.DEFINE_integer("port", 8765, "Port to listen on; 0 for a free one.", lower_bound=0, upper_bound=65535)
_TOKEN = flags.DEFINE_string("token", "", "What those who ask must know; default: none on this machine, else made up.")
_MAX_UPLOAD = flags.DEFINE_float("max_upload_mb", 32.0, "MB of the files of a query together.", 0.001, 1024.0)
_MIN_TOKEN = 16


def main() -> None:
    """Serves until it is interrupted."""
    if not _INDEX.value:
        raise UserError("pass --index, a folder written by medjax.bin.embed")
    if _WORKDIR.value and _EXPORT.value:
        raise UserError("pass --workdir or --export, not both")
    guard = Guard(_HOST.value, _token())
    index = store.read_index(_INDEX.value)
    tables = {split: store.read(_INDEX.value, split) for split in index.splits}
    encoder = _encoder(index)
    dataset, notes = _dataset(encoder)
    service = Service.create(index, tables, encoder, dataset, notes)
    logging.getLogger("medjax.serve").setLevel(logging.INFO)
    server = _bind(service, guard)
    _announce(service, server, guard)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print("stopped")
    finally:
        server.server_close()


def _token() -> str:
    token = _TOKEN.value
    if token and len(token) < _MIN_TOKEN:
        raise UserError(f"--token has {len(token)} characters; use at least {_MIN_TOKEN}, or leave it out")
    return token or ("" if is_loopback(_HOST.value) else secrets.token_urlsafe(24))


def _encoder(index: store.Index) -> Encoder | None:
    """With the checkpoint and weights that the index says."""
    if _EXPORT.value:
        return load_export(_EXPORT.value)
    if not _WORKDIR.value:
        return None
    checkpoint = index.about["checkpoint"]
    name = "best" if checkpoint["name"] == "export" else checkpoint["name"]
    return load_run(_WORKDIR.value, name, checkpoint["weights"])


def _dataset(encoder: Encoder | None) -> tuple[Dataset | None, list[str]]:
    """The data set, and what is to be said where something is missing.

    Raises:
      UserError: --data names none, or one that the encoder cannot read.
    """
    notes = []
    if encoder is None:
        notes.append(
            "No encoder was given: neighbours of studies and filters work, search by new text or files does not. "
            "Start the server with --workdir or --export for it."
        )
    if _DATA.value and encoder is None:
        return Dataset.open(DataConfig(modalities={}, dir=_DATA.value), {}), notes
    try:
        dataset = encoder.dataset(_DATA.value) if encoder else None
    except UserError:
        if _DATA.value:
            raise
        dataset = None
    if dataset is None:
        notes.append("The data set is not here, so that studies are not shown; name it with --data.")
    elif dataset.manifest.sensitive:
        notes.append("The data set is marked sensitive: pictures, texts and attributes are not shown.")
    return dataset, notes


def _bind(service: Service, guard: Guard) -> Server:
    try:
        return Server((_HOST.value, _PORT.value), service, guard, int(_MAX_UPLOAD.value * 2**20))
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot listen on {_HOST.value} port {_PORT.value}: {reason}; try another --port") from None


def _announce(service: Service, server: Server, guard: Guard) -> None:
    host = socket.gethostname() if guard.host in ("0.0.0.0", "::") else guard.host
    host = f"[{host}]" if ":" in host else host
    print(f"{len(service.table)} studies of {service.index.about['data']['name']}")
    for note in service.notes:
        print(f"note: {note}")
    if not is_loopback(guard.host):
        print("note: the connection is not encrypted; put it behind a tunnel (ssh -L) where the network is not yours")
    print(f"open http://{host}:{server.server_address[1]}/{f'?token={guard.token}' if guard.token else ''}", flush=True)


def run() -> None:
    """The console script."""
    cli.run(main)


if __name__ == "__main__":
    run()
