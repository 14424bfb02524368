"""Builds scheduled kernels into a shared library: plans memory, links for the host or a board."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

MARK = "edgekd-facts:"
"""What stands before the facts in a library: the features that its code needs of a processor, and
its integer kernels in order, each with its layer."""

SOURCE = (
    'extern "C" __attribute__((used, visibility("default"))) '
    'const char edgekd_facts[] = "{mark}{text};\n'
)


def built(module: Any, target: Any) -> tuple[Any, int]:
    """TVM's executable, and the bytes that its memory plan allocates for intermediate tensors."""
    import tvm
    from tvm import relax

    planned: list[int] = []

    @tvm.transform.module_pass(opt_level=0)  # type: ignore[untyped-decorator]
    def count(lowered: Any, _: Any) -> Any:
        planned.append(planned_bytes(lowered))
        return lowered

    passes = [
        relax.transform.RewriteDataflowReshape(),
        relax.transform.ToNonDataflow(),
        relax.transform.RemovePurityChecking(),
        relax.transform.CallTIRRewrite(),
        relax.transform.StaticPlanBlockMemory(),
        count,
        relax.transform.LowerAllocTensor(),
        relax.transform.KillAfterLastUse(),
        relax.transform.LowerRuntimeBuiltin(),
        relax.transform.ComputePrimValue(),
        relax.transform.VMShapeLower(),
        relax.transform.AttachGlobalSymbol(),
    ]
    # The machine checks the network's inputs; without checks of each kernel's, whose errors are
    # written out in full, the file is up to half as large.
    unchecked = tvm.transform.PassContext(opt_level=3, config={"tirx.disable_assert": True})
    with target, unchecked:
        pipeline = tvm.transform.Sequential(passes)
        executable = tvm.compile(module, target, relax_pipeline=pipeline)
    return executable, planned[0]


def planned_bytes(module: Any) -> int:
    """The bytes that the memory plan allocates, summed over all functions."""
    from tvm import relax

    total = 0
    for call in _calls(module, "relax.memory.alloc_storage"):
        size = call.args[0]
        if isinstance(size, relax.ShapeExpr):
            total += int(size.values[0])
    return total


def _calls(module: Any, name: str) -> Iterator[Any]:
    from tvm import ir, relax

    found: list[Any] = []

    def visit(node: Any) -> None:
        if isinstance(node, ir.Call) and getattr(node.op, "name", "") == name:
            found.append(node)

    for function in module.functions.values():
        if isinstance(function, relax.Function):
            relax.analysis.post_order_visit(function, visit)
    yield from found


def exported(
    executable: Any, path: Path, linker: str, facts: Mapping[str, Any] | None = None
) -> None:
    """Link the executable into `path`; the same executable gives the same bytes.

    The library carries `facts` behind MARK, as JSON that ends with a null byte.
    """
    from tvm.support import cc

    source = path.with_suffix(".cc")
    text = json.dumps(json.dumps(facts or {}, separators=(",", ":")))
    source.write_text(SOURCE.format(mark=MARK, text=text.removeprefix('"')))
    executable.export_library(
        str(path),
        fcompile=cc.cross_compiler(linker),
        options=["-Wl,--build-id=none", "-Wl,-s", "-Wl,-z,noseparate-code", str(source)],
    )
    source.unlink()
