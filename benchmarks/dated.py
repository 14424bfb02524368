"""Where a benchmark's result goes: JSON beside the script, named by the day, with the machine."""

import datetime
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "onnxruntime", "ai-edge-litert", "apache-tvm", "nncf", "torchao")


def write_result(script: str, result: dict[str, Any]) -> Path:
    """Write `result` as SCRIPT-NAME.DATE.json in the script's folder, and print it."""
    place = Path(script).resolve()
    today = datetime.date.today().isoformat()
    about = {
        "date": today,
        "machine": f"{_processor()}, {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }
    path = place.with_name(f"{place.stem}.{today}.json")
    path.write_text(json.dumps({**about, **result}, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))
    return path


def _processor() -> str:
    """The processor's own name, with what decides its int8 speed."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    flags = set(facts.get("flags", "").split())
    fast = [name for name in ("avx2", "avx512f", "avx512_vnni", "avx_vnni") if name in flags]
    return f"{facts.get('model name', 'unknown processor')} ({', '.join(fast)})"
