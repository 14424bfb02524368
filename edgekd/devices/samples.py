"""Convert an agent's replies to the samples of one benchmark."""

from edgekd.devices import Options, Samples, Scope
from edgekd.devices.replies import Benchmarked, Cold, Loaded, milliseconds
from edgekd.errors import ToolError


def threads_of(options: Options) -> int:
    """One unless the options say more; TVM's compiler calls them cores."""
    return int(options["threads"] if "threads" in options else options.get("num_cores", 1))


def no_samples(why: str, quick: bool) -> Samples:
    """The samples of a device that has outputs but no latencies, with the reason."""
    return Samples((), None, None, {}, quick=quick, invalid=why)


def samples_of(
    reply: Benchmarked, which: int, loaded: Loaded, cold: Cold, options: Options, quick: bool,
    scope: Scope,
) -> Samples:  # fmt: skip
    """The samples of one of the models of a benchmark. Raises `ToolError` for impossible
    windows."""
    windows, spans, counts = reply.windows_ns[which], reply.spans_ns[which], reply.counts[which]
    if not windows or not all(windows):
        raise ToolError("the agent sent an empty window")
    if not all(map(all, windows)):
        raise ToolError("the agent sent a run that took no time")
    if len(spans) != len(windows):
        raise ToolError(f"the agent sent {len(windows)} windows but the times of {len(spans)}")
    if len(counts) != len(windows) or any(map(int.__lt__, counts, map(len, windows))):
        raise ToolError("the agent sent more runs than it counted")
    after = {f"{key}_after": reply.after[key] for key in ("temperature_c",) if key in reply.after}
    conditions = {
        **reply.before,
        **after,
        **loaded.notes,
        "runtime": loaded.version,
        "threads": str(threads_of(options)),
        "warm_up_settled": "yes" if reply.settled[which] else "no",
        "interleaved": str(len(reply.windows_ns)),
    }
    return Samples(
        counts=counts,
        windows_ms=tuple(tuple(milliseconds(run) for run in window) for window in windows),
        cold_ms=milliseconds(cold.load_ns + cold.first_ns),
        peak_memory_bytes=cold.peak_bytes,
        conditions=conditions,
        quick=quick,
        invalid=reply.invalid,
        scope=scope,
        spans_s=tuple((start / 1e9, end / 1e9) for start, end in spans),
        memory_reason=cold.reason,
    )
