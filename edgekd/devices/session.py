"""A device reached through an agent at the other end of a transport."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from edgekd.devices import Options, Recording, Samples, Scope, Streamed
from edgekd.devices.packing import as_npy, bytes_per_run, rows_of, unpacked
from edgekd.devices.profilers import profiler_of
from edgekd.devices.recording import AgentRecording
from edgekd.devices.replies import (
    Benchmarked,
    Cold,
    Hello,
    Inferred,
    Loaded,
    Looked,
    Profiled,
    checked,
    decode,
    fault_of,
    printable,
)
from edgekd.devices.samples import no_samples, samples_of, threads_of
from edgekd.devices.streams import streamed
from edgekd.devices.transport import Channel, Disconnected, Transport
from edgekd.errors import EdgekdError, InputError, MissingRuntime, ToolError
from edgekd.store import write_beside
from edgekd.values.artifact import Artifact, TensorInfo
from edgekd.values.backend_lookup import runners
from edgekd.values.measurement import Kind

R = TypeVar("R")

FULL = {
    "warmup_runs": 10, "warmup_s": 1.0, "warmup_window_s": 0.25, "warmup_limit_s": 20.0,
    "settled": 0.02, "windows": 5, "window_s": 1.0, "runs": 1024, "seconds": 60.0, "limit_s": 0.0,
}  # fmt: skip
QUICK = {
    **FULL, "warmup_s": 0.2, "warmup_window_s": 0.05, "warmup_limit_s": 1.0,
    "window_s": 0.1, "runs": 200, "seconds": 1.5, "limit_s": 10.0,
}  # fmt: skip
"""The full measuring protocol, and the short one whose results are marked as quick."""

PROFILED_FOR = {False: {"runs": 500, "seconds": 10.0}, True: {"runs": 100, "seconds": 1.0}}
"""The number of inferences whose operators are timed, and the time they may take, by `quick`."""

AGENT_OPTIONS = (
    "threads", "provider", "delegate", "delegate_options", "kernels", "device", "entry", "cudart",
    "shapes", "affinity", "signature", "ranges",
)  # fmt: skip
"""The keys of a target's backend table about running; the others are for the compiler."""

CHUNK_BYTES = 16 << 20
"""This much of a test set is sent at once: a small board can hold it, and a slow line shows
progress."""

LARGEST_OUTPUT = 1 << 30
LARGEST_FILE = 4 << 30
PAUSES_S = (0.5, 2.0)
"""Pauses before each attempt to reach a board whose connection was lost."""


class AgentDevice:
    """`Device` over any transport. Agents are started when needed and ended by `close`.

    `no_times` says why this device has outputs but no latencies, if so. `limit_s` is the longest
    silence of a command before its agent is killed.
    """

    def __init__(
        self, name: str, kind: Kind, transport: Transport, *, no_times: str = "",
        limit_s: float = 300.0, progress: Callable[[float], None] | None = None,
    ) -> None:  # fmt: skip
        self.name = name
        self.kind = kind
        self._transport = transport
        self._no_times = no_times
        self._limit_s = limit_s
        self._progress = progress
        self._channel: Channel | None = None
        self._loaded: dict[str, Loaded] = {}
        self._hello: Hello | None = None
        self._count = 0

    def hello(self) -> Hello:
        """What the device is and which runtimes it has, queried once."""
        if self._hello is None:
            self._hello = self._persistently(self._ask_hello)
        return self._hello

    def _ask_hello(self) -> Hello:
        request: dict[str, Any] = {"command": "hello"}
        sources = runners()
        if sources:
            request["runners"] = {name: self._transport.put(path) for name, path in sources.items()}
        answer = self._ask(self._shared(), request, self.name)
        return checked(Hello, answer, self.name)

    def can_run(self, artifact: Artifact) -> str:
        runtimes = self.hello().runtimes
        if runtimes.get(artifact.runtime):
            built_for = _machine_of(artifact.path) if artifact.runtime == "tvm" else ""
            if built_for and built_for != self.hello().machine:
                return f"it is built for {built_for}, but {self.name} is {self.hello().machine}"
            on_gpu = any(each.placement == "gpu" for each in artifact.placements)
            if artifact.runtime == "tvm" and on_gpu and "cuda" not in self.hello().drivers:
                return f"its kernels need an NVIDIA GPU, but {self.name} has no CUDA driver"
            return ""
        how = self.hello().install.get(artifact.runtime, "")
        return f"{self.name} has no {artifact.runtime}" + (f" ({how})" if how else "")

    def probe(
        self, path: Path, runtime: str, options: Options
    ) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
        def load() -> Loaded:
            request = self._load_request(path, runtime, (), (), options)
            return self._load(self._shared(), request, str(path))

        loaded = self._persistently(load)
        inputs, outputs = loaded.inputs, loaded.outputs
        return tuple(one.info() for one in inputs), tuple(one.info() for one in outputs)

    def infer(
        self, artifact: Artifact, inputs: Sequence[np.ndarray], options: Options
    ) -> tuple[np.ndarray, ...]:
        if not inputs:
            raise InputError("there are no inputs to run it on", where=str(artifact.path))
        loaded = self._persistently(lambda: self._loaded_model(artifact, options))
        rows = rows_of(loaded, inputs, options, str(artifact.path))
        runs = max(CHUNK_BYTES // max(bytes_per_run(inputs, rows), 1), 1)
        parts: list[list[np.ndarray]] = []
        for done in range(0, -(-len(inputs[0]) // rows[0]), runs):
            chunk = [
                x[done * size : (done + runs) * size] for x, size in zip(inputs, rows, strict=True)
            ]
            parts.append(self._persistently(lambda: self._infer(chunk, artifact, options)))  # noqa: B023
        return tuple(np.concatenate(part) for part in zip(*parts, strict=True))

    def _loaded_model(self, artifact: Artifact, options: Options) -> Loaded:
        """The model in the shared agent, loaded if it is not there, or no longer."""
        channel = self._shared()
        request = self._request_of(artifact, options)
        key = json.dumps([artifact.sha256, request])
        if key not in self._loaded:
            self._loaded[key] = self._load(channel, request, str(artifact.path))
        return self._loaded[key]

    def _infer(
        self, arrays: Sequence[np.ndarray], artifact: Artifact, options: Options
    ) -> list[np.ndarray]:
        place = str(artifact.path)
        model = self._loaded_model(artifact, options).model
        self._count += 1
        source = self._transport.scratch(f"inputs-{self._count}.npy")
        there = self._transport.scratch(f"outputs-{self._count}.raw")
        request = {
            "command": "infer",
            "model": model,
            "input": source,
            "count": len(arrays),
            "output": there,
            "input_layout": _layout(artifact, options),
            "batch": options.get("batch", 64),
        }
        try:
            self._transport.write(source, as_npy(arrays))
            outputs = checked(Inferred, self._ask(self._shared(), request, place), place).outputs
            size = sum(each.bytes for each in outputs)
            if size > LARGEST_OUTPUT:
                raise ToolError(f"outputs of {size:,} bytes for one chunk of inputs", where=place)
            content = self._transport.take(there, size)
        except Disconnected:
            raise
        except ToolError:
            self._drop()
            raise
        if len(content) != size:
            shapes = ", ".join(str(each.shape) for each in outputs)
            raise ToolError(f"{len(content)} bytes of outputs of shapes {shapes}", where=place)
        return unpacked(content, outputs)

    def benchmark(
        self,
        artifacts: Sequence[Artifact],
        options: Options | Sequence[Options],
        *,
        quick: bool,
    ) -> list[Samples]:
        if self._no_times:
            return [no_samples(self._no_times, quick) for _ in artifacts]
        self._drop()  # its models use memory, and an Edge TPU serves one process at a time
        try:
            return self._benchmark(artifacts, options, quick)
        except Disconnected as error:
            self._drop()
            raise ToolError(
                f"{error.message} during a benchmark, whose results are discarded",
                where=error.where,
                hint="run it again",
            ) from None

    def _benchmark(
        self, artifacts: Sequence[Artifact], options: Options | Sequence[Options], quick: bool
    ) -> list[Samples]:
        each = [options] * len(artifacts) if isinstance(options, dict) else list(options)
        requests = [self._request_of(a, o) for a, o in zip(artifacts, each, strict=True)]
        pin = int(all(threads_of(option) == 1 for option in each))
        colds = [
            self._cold(request, str(artifact.path), pin)
            for request, artifact in zip(requests, artifacts, strict=True)
        ]
        channel = self._transport.open_channel(pin)
        places = ", ".join(str(artifact.path) for artifact in artifacts)
        try:
            loaded = [
                self._load(channel, request, str(artifact.path))
                for request, artifact in zip(requests, artifacts, strict=True)
            ]
            request = {
                "command": "benchmark",
                "models": [reply.model for reply in loaded],
                "protocol": {**(QUICK if quick else FULL), **each[0].get("protocol", {})},
                "end_to_end": each[0].get("scope") == "end-to-end",
                "input_layouts": [
                    _layout(artifact, option)
                    for artifact, option in zip(artifacts, each, strict=True)
                ],
            }
            reply = checked(Benchmarked, self._ask(channel, request, places), places)
        finally:
            channel.close()
        per_model = (reply.windows_ns, reply.counts, reply.spans_ns, reply.settled)
        if {len(values) for values in per_model} != {len(loaded)}:
            raise ToolError("the agent sent results for a different number of models", where=places)
        scope: Scope = "end-to-end" if request["end_to_end"] else "model"
        return [
            samples_of(reply, which, loaded[which], colds[which], each[which], quick, scope)
            for which in range(len(artifacts))
        ]

    def profile(self, artifact: Artifact, options: Options, *, quick: bool) -> Profiled:
        source, place = profiler_of(artifact.runtime), str(artifact.path)
        reason = self._no_times if source else f"{artifact.runtime} does not time its operators"
        if reason or source is None:
            raise MissingRuntime(reason, where=place)
        self._drop()
        pin = int(threads_of(options) == 1)
        name = f"{artifact.runtime}-profile"
        request = {
            **self._request_of(artifact, options),
            "runtime": name,
            "runners": {name: self._transport.put(source)},
        }
        channel = self._transport.open_channel(pin)
        try:
            model = self._load(channel, request, place).model
            asked = {
                "command": "profile", "model": model, "protocol": QUICK if quick else FULL,
                **PROFILED_FOR[quick],
            }  # fmt: skip
            return checked(Profiled, self._ask(channel, asked, place), place)
        finally:
            channel.close()

    def stream(
        self, artifact: Artifact, options: Options, streams: int, *, quick: bool
    ) -> Streamed:
        place = str(artifact.path)
        if self._no_times:
            raise MissingRuntime(self._no_times, where=place)
        self._drop()
        request = self._request_of(artifact, options)
        protocol = {**(QUICK if quick else FULL), **options.get("protocol", {})}
        with ExitStack() as stack:
            channels = [self._transport.open_channel(0) for _ in range(streams)]
            for channel in channels:
                stack.callback(channel.close)
            asks = [partial(self._ask, channel, place=place) for channel in channels]
            return streamed(asks, request, protocol, quick, place)

    def look(self, patterns: Sequence[str]) -> dict[str, str]:
        def ask() -> Looked:
            request = {"command": "look", "patterns": list(patterns)}
            return checked(Looked, self._ask(self._shared(), request, self.name), self.name)

        return self._persistently(ask).files

    @contextmanager
    def record(self, files: Sequence[str], period_s: float) -> Iterator[Recording]:
        channel = self._transport.open_channel(0)
        try:
            recording = AgentRecording(partial(self._ask, channel, place=self.name), self.name)
            recording.begin(files, period_s)
            yield recording
            recording.end()
        finally:
            channel.close()

    def execute(self, command: Sequence[str], limit_s: float) -> tuple[int, str, str]:
        return self._transport.execute(command, limit_s)

    def send(self, path: Path) -> str:
        return self._transport.lend(path)

    def fetch(self, there: str, to: Path) -> None:
        write_beside(to, self._transport.read(there, LARGEST_FILE))

    def close(self) -> None:
        self._drop()
        self._transport.close()

    def _cold(self, request: dict[str, Any], place: str, pin: int) -> Cold:
        channel = self._transport.open_channel(pin)
        try:
            return checked(Cold, self._ask(channel, {**request, "command": "memory"}, place), place)
        finally:
            channel.close()

    def _request_of(self, artifact: Artifact, options: Options) -> dict[str, Any]:
        infos = artifact.inputs, artifact.outputs
        return self._load_request(artifact.path, artifact.runtime, *infos, options)

    def _load_request(
        self, path: Path, runtime: str, inputs: Sequence[TensorInfo],
        outputs: Sequence[TensorInfo], options: Options,
    ) -> dict[str, Any]:  # fmt: skip
        tensors = {
            "inputs": [info.model_dump() for info in inputs],
            "outputs": [info.model_dump() for info in outputs],
        }
        foreign = runners().get(runtime)
        chosen = {key: value for key, value in options.items() if foreign or key in AGENT_OPTIONS}
        chosen["threads"] = threads_of(options)
        if runtime == "tvm" or foreign:  # such a file may not record them itself
            chosen.update(tensors)
        if runtime == "tvm":
            chosen.setdefault("device", "cuda" if options.get("kind") == "cuda" else "cpu")
        there = self._transport.put(path)
        request = {"command": "load", "path": there, "runtime": runtime, "options": chosen}
        sources = {"runners": {runtime: self._transport.put(foreign)}} if foreign else {}
        return {**request, **tensors, **sources}

    def _load(self, channel: Channel, request: dict[str, Any], place: str) -> Loaded:
        return checked(Loaded, self._ask(channel, request, place), place)

    def _shared(self) -> Channel:
        if self._channel is None:
            self._channel = self._transport.open_channel(0)
        return self._channel

    def _drop(self) -> None:
        if self._channel is not None:
            self._channel.close()
        self._channel = None
        self._loaded.clear()

    def _persistently(self, act: Callable[[], R]) -> R:
        """Retry after a lost connection; only for actions that leave no trace on the device."""
        for pause in PAUSES_S:
            try:
                return act()
            except Disconnected:
                self._drop()
                time.sleep(pause)
        return act()

    def _ask(self, channel: Channel, request: dict[str, Any], place: str) -> Any:
        """The `ok` part of the reply. After a fault of the device, the shared agent is ended."""
        try:
            return self._converse(channel, request, place)
        except MissingRuntime:  # a valid reply
            raise
        except ToolError:
            if channel is self._channel:
                self._drop()
            raise

    def _converse(self, channel: Channel, request: dict[str, Any], place: str) -> Any:
        # The agent's own alarm is later than this limit: it is for when this process is gone.
        line = json.dumps({**request, "limit_s": int(self._limit_s) + 5}).encode()
        start = time.monotonic()
        try:
            channel.send(line)
            while True:
                answer = decode(channel.receive(self._limit_s), place)
                if "progress" not in answer:
                    break
                if self._progress is not None:
                    self._progress(time.monotonic() - start)
        except EOFError:
            raise self._crash(channel, place) from None
        except TimeoutError:
            raise ToolError(
                f"no reply to '{request['command']}' within {self._limit_s:g} s on {self.name}",
                where=place,
            ) from None
        if "error" in answer:
            raise fault_of(answer["error"], place)
        return answer["ok"]

    def _crash(self, channel: Channel, place: str) -> EdgekdError:
        why = channel.ended()
        said = [line for line in channel.errors().splitlines() if line.strip()]
        hint = f"its last output: {printable(said[-1])[:300]}" if said else ""
        return ToolError(f"the runtime {why} on {self.name}", where=place, hint=hint)


def _layout(artifact: Artifact, options: Options) -> str:
    return str(options.get("input_layout") or artifact.facts.get("input_layout", ""))


def _machine_of(library: Path) -> str:
    """The processor that an ELF file is built for, from its header; empty for other files."""
    with library.open("rb") as stream:
        header = stream.read(20)
    number = int.from_bytes(header[18:20], "little") if header[:4] == b"\x7fELF" else 0
    return {62: "x86_64", 183: "aarch64", 40: "armv7l"}.get(number, "")
