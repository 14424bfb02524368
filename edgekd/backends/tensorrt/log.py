"""Reads what trtexec reports about a build."""

import json
import re

_NUMBER = r"([\d.]+(?:e[+-]?\d+)?)"
_LATENCY = re.compile(
    rf"(?<!Host )Latency: min = {_NUMBER} ms, max = {_NUMBER} ms, mean = {_NUMBER} ms, "
    rf"median = {_NUMBER} ms"
)
_GPU = re.compile(rf"GPU Compute Time: .*?median = {_NUMBER} ms")
_THROUGHPUT = re.compile(rf"Throughput: {_NUMBER} qps")
_VERSION = re.compile(r"TensorRT\.trtexec \[TensorRT v(\d+)\]|TensorRT version: ([\d.]+)")


def read_log(log: str) -> dict[str, float | str]:
    """Throughput and latency as trtexec printed them, without what it did not print.

    They come from random inputs with queries enqueued ahead, so they are facts about the build, not
    measurements for budgets.
    """
    facts: dict[str, float | str] = {}
    throughput = _THROUGHPUT.search(log)
    if throughput:
        facts["trtexec_queries_per_second"] = float(throughput[1])
    latency = _LATENCY.search(log)
    if latency:
        facts["trtexec_latency_ms_min"] = float(latency[1])
        facts["trtexec_latency_ms_max"] = float(latency[2])
        facts["trtexec_latency_ms_mean"] = float(latency[3])
        facts["trtexec_latency_ms_p50"] = float(latency[4])
    gpu = _GPU.search(log)
    if gpu:
        facts["trtexec_gpu_ms_p50"] = float(gpu[1])
    return facts


def layer_precisions(text: str) -> dict[str, float | str]:
    """How many layers write which data type, from the JSON of `--exportLayerInfo`.

    TensorRT 8 says "Row major linear FP16 format" or "... Int8 format", TensorRT 10 "Half", "Int8".
    """
    try:
        layers = json.loads(text)["Layers"]
        formats = [
            str(layer["Outputs"][0]["Format/Datatype"]).lower()
            for layer in layers
            if isinstance(layer, dict) and layer.get("Outputs")
        ]
    except (ValueError, KeyError, TypeError, IndexError):
        return {}
    counts: dict[str, float | str] = {"engine_layers": len(formats)}
    for name, words in (
        ("int8", ("int8",)),
        ("fp16", ("fp16", "half")),
        ("fp32", ("fp32", "float")),
    ):
        count = sum(1 for one in formats if any(word in one for word in words))
        if count:
            counts[f"engine_layers_{name}"] = count
    return counts


def trtexec_version(log: str) -> str:
    """The version of TensorRT that a build's log names, or "unknown"."""
    match = _VERSION.search(log)
    return (match[1] or match[2]) if match else "unknown"
