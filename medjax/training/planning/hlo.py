"""The collective operations of a compiled program, read from its text (HLO)."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

_KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "ragged-all-to-all", "collective-permute")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) .*-> .*\{$")
_CALL = re.compile(rf"= (\(.*?\)|\S+) ({'|'.join(_KINDS)}|[\w\-]+?)(-start)?\(")
_CALLED = re.compile(
    r"(calls|to_apply|body|condition|branch_computations|called_computations|true_computation|false_computation)="
    r"(\{[^}]*\}|%[\w.\-]+)"
)
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_DEFINED = re.compile(r"^ *(?:ROOT )?%([\w.\-]+) = ")
_CONSTANT = re.compile(r" constant\((\d+)\)")
_SCATTERS = "all-reduce-scatter"  # how the TPU compiler names a sum of which each device keeps its part
_SHAPE = re.compile(r"\b(pred|bf16|[sufc]\d+\w*)\[([\d,]*)\]")
_BITS = re.compile(r"\d+")


@dataclass(frozen=True)
class Collective:
    """One operation. axes: of the mesh, over which its devices lie. payload: bytes of the whole array, of all devices
    of a group together (a permutation: of one device). group: devices. slow: whether a group reaches beyond a slice.
    """

    kind: str
    axes: tuple[str, ...]
    group: int
    payload: int
    slow: bool

    @property
    def sent(self) -> float:
        """Bytes that each device must send at least: once round a ring for gathering and for scattering."""
        if self.kind == "collective-permute":
            return self.payload
        return self.payload * (self.group - 1) / self.group * (2 if self.kind == "all-reduce" else 1)


@dataclass(frozen=True)
class Collectives:
    """times: how often a step does each. open_loops: rounds of so many loops with collectives are not known; they count
    once."""

    times: Counter
    open_loops: int = 0

    @property
    def sent(self) -> float:
        """Bytes that each device sends in a step."""
        return sum(c.sent * n for c, n in self.times.items())

    @property
    def sent_beyond(self) -> float:
        """Those of operations that reach beyond a slice."""
        return sum(c.sent * n for c, n in self.times.items() if c.slow)

    def rows(self) -> list[dict]:
        """Sums by kind and axes, the most bytes first."""
        found: dict[tuple, dict] = {}
        for c, n in self.times.items():
            row = found.setdefault((c.kind, c.axes), {"kind": c.kind, "axes": list(c.axes), "count": 0, "sent": 0.0})
            row["count"] += n
            row["sent"] += c.sent * n
        return sorted(found.values(), key=lambda r: -r["sent"])


def collectives(text: str, axes: Sequence[str], shape: Sequence[int], slices: np.ndarray | None = None) -> Collectives:
    """Those of one step of a compiled program.

    text: `compiled.as_text()`. axes, shape: of the mesh it was compiled for. slices: int[devices], the slice of each
    device of the mesh, in its order.

    Loops count as often as they run where the compiler knows it; of a conditional the branch that sends most.
    """
    program = _split(text)
    mesh = _Mesh(tuple(axes), tuple(shape), np.zeros(math.prod(shape), int) if slices is None else slices)
    done: dict[str, Counter] = {}
    loops: list[str] = []

    def of(name: str) -> Counter:
        if name not in done:
            done[name] = Counter()
            for line in program.get(name, ()):
                done[name] += _of_line(line, name, program, mesh, of, loops)
        return done[name]

    entry = next(name for name in reversed(program) if program[name] and name in program["ENTRY"])
    return Collectives(of(entry), len(loops))


@dataclass(frozen=True)
class _Mesh:
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    slices: np.ndarray

    def collective(self, kind: str, payload: int, groups: np.ndarray) -> Collective:
        places = np.stack(np.unravel_index(groups, self.shape), -1)
        differs = (places != places[:, :1]).any((0, 1))
        axes = tuple(a for a, d in zip(self.axes, differs, strict=True) if d)
        crossing = self.slices[groups]
        return Collective(kind, axes, groups.shape[1], payload, bool((crossing != crossing[:, :1]).any()))


def _split(text: str) -> dict[str, list[str]]:
    """The lines of each computation; under "ENTRY" the name of the one that is the program."""
    out: dict[str, list[str]] = {"ENTRY": []}
    lines: list[str] = []
    for line in text.splitlines():
        if line.endswith("{") and (found := _COMPUTATION.match(line)):
            lines = out.setdefault(found[1], [])
            if line.startswith("ENTRY"):
                out["ENTRY"].append(found[1])
        elif line.startswith("  "):
            lines.append(line)
    return out


def _of_line(line: str, computation: str, program, mesh: _Mesh, of, loops: list[str]) -> Counter:
    call = _CALL.search(line)
    if not call:
        return Counter()
    result, name, start = call.groups()
    if name in _KINDS:
        return _of_collective(line, result, name, bool(start), mesh, computation.startswith(_SCATTERS))
    inner: dict[str, list[Counter]] = {}
    for attribute, names in _CALLED.findall(line):
        inner.setdefault(attribute, []).extend(of(n) for n in re.findall(r"%([\w.\-]+)", names))
    if name == "while":
        each = sum((c for part in inner.values() for c in part), Counter())
        trips = _trips(line, program, computation)
        if trips is None and each:
            loops.append(line)
        return each if trips is None else Counter({c: n * trips for c, n in each.items()})
    parts = [c for part in inner.values() for c in part]
    if name == "conditional":
        return max(parts, key=lambda c: Collectives(c).sent, default=Counter())
    return sum(parts, Counter())


def _trips(line: str, program: dict[str, list[str]], computation: str) -> int | None:
    """Rounds of a loop; None if unknown. The TPU compiler does not say: then of a loop that counts from a constant to a
    constant, which it does by ones in all that JAX makes."""
    if known := _TRIPS.search(line):
        return int(known[1])
    condition = _defined(program.get(line.partition("condition=%")[2].split(",")[0], ()))
    root = next((x for x in condition.values() if x.lstrip().startswith("ROOT")), "")
    compared = re.search(r"compare\(%([\w.\-]+), %([\w.\-]+)\), direction=LT", root)
    if not compared:
        return None
    place = re.search(r"get-tuple-element\(.*\), index=(\d+)", condition.get(compared[1], ""))
    last = _CONSTANT.search(condition.get(compared[2], ""))
    here = _defined(program[computation])
    given = re.search(r" tuple\((.*?)\)", here.get(line.partition(" while(%")[2].partition(")")[0], ""))
    if not (place and last and given):
        return None
    value = here.get(re.findall(r"%([\w.\-]+)", given[1])[int(place[1])], "")
    while copied := re.search(r" copy\(%([\w.\-]+)\)", value):
        value = here.get(copied[1], "")
    first = _CONSTANT.search(value)
    return max(int(last[1]) - int(first[1]), 0) if first else None


def _defined(lines: Sequence[str]) -> dict[str, str]:
    """The line of each name."""
    return {found[1]: line for line in lines if (found := _DEFINED.match(line))}


def _of_collective(line: str, result: str, kind: str, start: bool, mesh: _Mesh, scatters: bool) -> Counter:
    sizes = list(_sizes(result))
    if kind == "collective-permute":
        pairs = re.findall(r"\{(\d+),(\d+)\}", line.partition("source_target_pairs=")[2].partition("}}")[0] + "}")
        pairs = np.array(pairs, int)
        pairs = pairs[pairs[:, 0] != pairs[:, 1]] if len(pairs) else pairs
        payload = sizes[1] if start and len(sizes) > 1 else sum(sizes)
        return Counter([mesh.collective(kind, payload, pairs)]) if len(pairs) else Counter()
    groups = _groups(line, len(mesh.slices))
    if groups.shape[1] == 1:
        return Counter()
    payload = sum(sizes)
    if kind == "all-gather" and start:  # its result is its argument, and what becomes of it
        payload = round(payload / (1 + 1 / groups.shape[1]))
    if kind == "reduce-scatter":
        payload *= groups.shape[1]
    elif kind == "all-reduce" and scatters:
        kind = "reduce-scatter"
    return Counter([mesh.collective(kind, payload, groups)])


def _sizes(shapes: str) -> Iterator[int]:
    for dtype, dims in _SHAPE.findall(shapes):
        bits = 8 if dtype == "pred" else int(_BITS.search(dtype)[0])
        yield math.prod(int(d) for d in dims.split(",") if d) * bits // 8


def _groups(line: str, devices: int) -> np.ndarray:
    """int[groups, devices of each], as places in the mesh; written as lists, as a reshaped range, or as mesh axes."""
    if found := re.search(r"replica_groups=\{(\{[\d,{} ]*\})\}", line):
        return np.array([[int(x) for x in g.split(",")] for g in re.findall(r"\{([\d, ]+)\}", found[1])])
    if found := re.search(r"replica_groups=\[([\d,]+)\]<=(\[[\d,]+\](?:T\([\d,]+\))?)", line):
        return _iota(found[2]).reshape([int(x) for x in found[1].split(",")])
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\((.*?)\))? \{([^}]*)\}", line):
        return _of_axes(*found.groups())
    return np.arange(devices)[None]


def _iota(text: str) -> np.ndarray:
    """int[...] of "[4,2]T(1,0)": numbers from 0 on in the first shape, transposed."""
    dims, order = (
        [int(x) for x in re.search(p, text)[1].split(",")] if re.search(p, text) else []
        for p in (r"\[([\d,]+)\]", r"T\(([\d,]+)\)?")
    )
    return np.arange(math.prod(dims)).reshape(dims).transpose(order or range(len(dims)))


def _of_axes(mesh: str, order: str | None, chosen: str) -> np.ndarray:
    """Groups along axes 'a', or along parts of axes 'a':(before)size."""
    sizes = {name: int(n) for name, n in re.findall(r"'([^']+)'=(\d+)", mesh)}
    parts = {name: (int(b), int(n)) for name, b, n in re.findall(r"'([^']+)':\((\d+)\)(\d+)", chosen)}
    whole = set(re.findall(r"'([^']+)'(?!:)", chosen))
    dims: list[int] = []
    along: list[int] = []
    for name, n in sizes.items():
        before, size = parts.get(name, (1, n))
        if name in parts or name in whole:
            along.append(len(dims) + 1)
        dims += [before, size, n // before // size]
    ids = (_iota(order) if order else np.arange(math.prod(dims))).reshape(dims)
    last = [i for i in range(len(dims)) if i not in along] + along
    return ids.transpose(last).reshape(-1, math.prod(dims[i] for i in along))
