"""Tar shards are listed as they were packed; what is torn, a link or a boast is refused, and no name leads anywhere."""

import gzip
import io
import tarfile

import pytest

from medjax.data.readers.webdataset import expand_shards, samples
from medjax.errors import UserError

MEMBERS = [("a/1.jpg", b"J" * 700), ("a/1.txt", b"one"), ("a/1.json", b"{}"), ("a/2.JPG", b"K"), ("a/2.seg.png", b"P")]


def shard(path, members=MEMBERS, form=tarfile.PAX_FORMAT, change=lambda info: None):
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1234567890.123  # such a time needs an extended header
            change(info)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_members_of_one_key_are_one_sample(tmp_path, form):
    found = list(samples(shard(tmp_path / "s.tar", form=form)))
    assert [(s.key, {e: s.read(e) for e in s.members}) for s in found] == [
        ("a/1", {"jpg": b"J" * 700, "txt": b"one", "json": b"{}"}),
        ("a/2", {"jpg": b"K", "seg.png": b"P"}),
    ]


def test_long_names_folders_and_hidden_files(tmp_path):
    long = "x" * 300
    members = [(f"{long}/k.txt", b"t"), (f"{long}/._k.txt", b"mac"), ("README", b"no ending")]
    path = shard(tmp_path / "s.tar", members)
    with tarfile.open(path, "a") as tar:
        tar.addfile(tarfile.TarInfo.frombuf(tarfile.TarInfo("d").tobuf(), "utf-8", "strict"))
        folder = tarfile.TarInfo("folder.d")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
    assert [(s.key, s.read("txt")) for s in samples(path)] == [(f"{long}/k", b"t")]


@pytest.mark.parametrize("name", ["../../etc/passwd.txt", "/etc/passwd.txt"])
def test_names_that_climb_are_keys_and_nothing_more(tmp_path, name):
    (tmp_path / "deep").mkdir()
    path = shard(tmp_path / "deep" / "s.tar", [(name, b"t")])
    (found,) = samples(path)
    assert found.read("txt") == b"t" and found.path == path
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "deep", path]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path, kind):
    def change(info):
        if info.name == "a/2.JPG":
            info.type, info.linkname, info.size = kind, "/etc/passwd", 0

    with pytest.raises(UserError, match=r"s\.tar holds 'a/2\.JPG', a link or a device"):
        list(samples(shard(tmp_path / "s.tar", change=change)))


def header(name="k.txt", size=3, **fields) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    for key, value in fields.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.GNU_FORMAT)


END = bytes(1024)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is no plain tar file"),
        (b"text" * 200, "is no plain tar file"),
        (gzip.compress(header() + bytes(512) + END, mtime=0), "unpack .tar.gz"),
        (header(size=10**11) + b"abc" + END, "which do not fit|unexpected end"),
        (header(size=-512) + END, "which do not fit|no plain tar|cannot be read"),
        (header(size=2**40, type=tarfile.XHDTYPE) + END, "claims 1099511627776 bytes"),
        (header(size=-1024, type=tarfile.XHDTYPE) + END, "claims -1024 bytes"),
        (header(size=2**33, type=tarfile.GNUTYPE_LONGNAME) + END, "claims 8589934592 bytes"),
        (header() + bytes(512), "no end mark and is cut off"),
        (header() + bytes(512) + b"\xff" * 512 + END, "damaged at byte 1024"),
        (header("k.txt") + bytes(512) + header("k.TXT") + bytes(512) + END, "'k'.txt twice"),
        (
            header("k.txt") + bytes(512) + header("l.txt") + bytes(512) + header("k.jpg") + bytes(512) + END,
            "two places",
        ),
    ],
    ids=range(12),
)
def test_torn_and_boastful_shards_are_refused(tmp_path, data, message):
    (tmp_path / "s.tar").write_bytes(data)
    with pytest.raises(UserError, match=message) as caught:
        list(samples(tmp_path / "s.tar"))
    assert "s.tar" in str(caught.value) and "\n" not in str(caught.value)


def test_every_cut_of_a_shard_is_noticed(tmp_path):
    whole = shard(tmp_path / "s.tar").read_bytes()
    end = len(whole.rstrip(b"\0"))
    for cut in range(0, end, 331):
        (tmp_path / "t.tar").write_bytes(whole[:cut])
        with pytest.raises(UserError, match=r"t\.tar"):
            list(samples(tmp_path / "t.tar"))


def test_no_mutation_of_a_shard_does_more_than_to_be_refused(tmp_path, rng):
    whole = shard(tmp_path / "s.tar").read_bytes()
    for _ in range(80):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), 4):
            data[at] = rng.integers(0, 256)
        (tmp_path / "t.tar").write_bytes(data)
        try:
            for sample in samples(tmp_path / "t.tar"):
                for ending in sample.members:
                    sample.read(ending)
        except UserError as error:
            assert "\n" not in str(error)


def test_a_shard_that_shrinks_after_it_was_listed_is_named(tmp_path):
    path = shard(tmp_path / "s.tar")
    found = list(samples(path))
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(UserError, match=r"s\.tar is cut off in 'a/2'\.jpg"):
        found[1].read("jpg")


def test_patterns_of_shards(tmp_path):
    for name in ("a-008.tar", "a-009.tar", "a-010.tar", "b-1.tar", "c-1.tar"):
        (tmp_path / name).touch()
    found = expand_shards(f"{tmp_path}/a-{{008..010}}.tar::{tmp_path}/{{b,c}}-{{1..1}}.tar")
    assert [p.name for p in found] == ["a-008.tar", "a-009.tar", "a-010.tar", "b-1.tar", "c-1.tar"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{000..003}.tar", r"shard 001\.tar does not exist \(3 of 4 are missing\)"),
        ("{0..9999999}.tar", "at most 100000 numbers"),
        ("{9..2}.tar", "must rise"),
        ("{0..999}{0..999}.tar", "are more than 100000"),
        ("{0..9.tar", "braces that do not pair"),
        ("{{0..9}}.tar", "braces that do not pair"),
    ],
)
def test_patterns_that_lead_nowhere_are_refused(tmp_path, monkeypatch, pattern, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "000.tar").touch()
    with pytest.raises(UserError, match=message):
        expand_shards(pattern)
