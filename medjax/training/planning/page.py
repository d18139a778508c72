"""A plan as a page to read."""

from collections.abc import Iterable, Sequence

from medjax.training.planning.plan import Plan

_SCALES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def page(plan: Plan) -> str:
    """What a plan says, in lines."""
    return "\n".join([*_head(plan), *_memory(plan), *_communication(plan), *_time(plan), *_warnings(plan)])


def comparison(plans: Sequence[Plan]) -> list[list[str]]:
    """Rows of a table over several topologies: devices, mesh, batch, bytes per device and floor."""
    rows = []
    for p in plans:
        mesh = "x".join(str(n) for n in p.mesh.values())
        m, c, floor = p.memory, p.collectives, p.floor
        seconds = ["", ""] if floor is None else [f"{1e3 * floor.step:.1f} ms", floor.binding]
        bytes_ = (m.parameters + m.optimizer + m.ema, m.temporaries, m.peak, c.sent, c.sent_beyond)
        rows.append([p.topology.name, str(p.topology.devices), mesh, str(p.batch_size), *map(_bytes, bytes_), *seconds])
    return rows


COMPARED = (
    *("topology", "devices", "mesh", "batch", "weights+optimizer", "temporaries", "peak"),
    *("collectives", "beyond slice", "floor", "binding"),
)


def _head(plan: Plan) -> Iterable[str]:
    total = sum(plan.parameters.values())
    yield (
        f"{plan.topology.name}: {plan.topology.devices} devices in {plan.topology.slices} slice(s), mesh "
        f"{'x'.join(str(n) for n in plan.mesh.values())} ({', '.join(plan.mesh)}), batch {plan.batch_size}; "
        f"compiled in {plan.compile_seconds:.0f} s"
    )
    parts = ", ".join(f"{k} {_number(n)}" for k, n in sorted(plan.parameters.items(), key=lambda x: -x[1]) if n)
    yield f"parameters        {_number(total)}: {parts}"
    yield f"model FLOPs       {_number(plan.model_flops)} per example, forward and backward"
    yield f"FLOPs             {_number(plan.step_flops)} per device and step, with recomputation"


def _memory(plan: Plan) -> Iterable[str]:
    m = plan.memory
    yield "bytes per device"
    parts = (
        ("parameters", m.parameters),
        ("optimizer", m.optimizer),
        ("ema", m.ema),
        ("other state", m.other),
        ("batch", m.batch),
        ("temporaries", m.temporaries),
    )
    yield from (f"  {name:<16}{_bytes(n)}" for name, n in parts if n)
    of = f" of {_bytes(plan.capacity)}" if plan.capacity else ""
    yield f"  {'peak':<16}{_bytes(m.peak)}{of}{'' if plan.fits in (None, True) else ': DOES NOT FIT'}"


def _communication(plan: Plan) -> Iterable[str]:
    c = plan.collectives
    beyond = f", {_bytes(c.sent_beyond)} of them in operations that reach beyond a slice" if c.sent_beyond else ""
    yield f"collectives: each device sends {_bytes(c.sent)} a step{beyond}"
    for row in c.rows():
        yield f"  {row['kind']:<20}over {'+'.join(row['axes']):<20}{row['count']:>5} x  {_bytes(row['sent'])}"
    if c.open_loops:
        yield f"  {c.open_loops} loop(s) whose number of rounds is not known count once"


def _time(plan: Plan) -> Iterable[str]:
    floor, chip = plan.floor, plan.topology.chip
    if floor is None:
        return
    values = ", ".join(f"{k} {1e3 * v:.2f} ms" for k, v in vars(floor).items() if v)
    yield f"a step takes at least {1e3 * floor.step:.2f} ms ({floor.binding} binds; {values})"
    rate, peak = plan.batch_size / floor.step, chip.flops * plan.topology.devices
    share = plan.model_flops * rate / peak
    yield f"  at most {_number(rate)} examples/s and {share:.0%} of peak (MFU), by the data sheet of {chip.source}"
    if plan.collectives.sent_beyond and not chip.network:
        yield "  the network beyond a slice has no published rate, and is left out"


def _warnings(plan: Plan) -> Iterable[str]:
    for p in plan.accidental:
        yield f"replicated by accident: {p.path} {list(p.shape)}, {_bytes(p.bytes)}: {p.note}"
    yield from (f"note: {text}" for text in plan.notes)


def _number(x: float) -> str:
    for scale, letter in _SCALES:
        if abs(x) >= scale:
            return f"{x / scale:.1f}{letter}"
    return f"{x:.0f}"


def _bytes(x: float) -> str:
    for scale, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if x >= scale:
            return f"{x / scale:.2f} {unit}"
    return f"{x:.0f} B"
