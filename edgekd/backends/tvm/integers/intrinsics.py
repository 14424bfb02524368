"""The dot product instructions as tensor intrinsics of TVM's.

Those that TVM ships take the sums in global memory and vpdpbusd's operands as int32x16, which LLVM
refuses by now. These keep the sums in registers. LLVM's names are those of its own intrinsics.
"""

from typing import Any

from edgekd.backends.tvm.integers.dot import Dot

_FORM = """
@T.prim_func(s_tir=True)
def main(
    A: T.Buffer(({quad},), "{data}", offset_factor=1),
    B: T.Buffer(({lanes}, {quad}), "int8", offset_factor=1),
    C: T.Buffer(({lanes},), "int32", offset_factor=1, scope="local"),
) -> None:
    with T.sblock("root"):
        T.reads(C[0:{lanes}], A[0:{quad}], B[0:{lanes}, 0:{quad}])
        T.writes(C[0:{lanes}])
{body}
"""

_MEANING = """
        for i in T.serial(0, {lanes}):
            for k in T.serial(0, {quad}):
                with T.sblock("update"):
                    vi, vk = T.axis.remap("SR", [i, k])
                    C[vi] = C[vi] + T.cast(A[vk], "int32") * T.cast(B[vi, vk], "int32")
"""

_INPUTS = """T.reinterpret(T.broadcast(
            T.reinterpret(A.vload([0], "{data}x{quad}"), dtype="int32"), {lanes}),
            dtype="int8x{bytes}")"""

_WEIGHTS = 'B.vload([0, 0], dtype="int8x{bytes}")'

_SUMS = 'C.vload([0], dtype="int32x{lanes}")'

# In one expression each: a name would be a buffer in memory.
_CALL = f"""
        C[T.ramp(T.int32(0), 1, {{lanes}})] = T.call_llvm_pure_intrin(
            T.llvm_lookup_intrinsic_id("{{llvm}}"), {_SUMS}, {_INPUTS}, {_WEIGHTS},
            dtype="int32x{{lanes}}")
"""

_MULTIPLY_TWICE = f"""
        C[T.ramp(T.int32(0), 1, {{lanes}})] = {_SUMS} + T.call_llvm_pure_intrin(
            T.llvm_lookup_intrinsic_id("llvm.x86.avx2.pmadd.wd"),
            T.call_llvm_pure_intrin(
                T.llvm_lookup_intrinsic_id("llvm.x86.avx2.pmadd.ub.sw"), {_INPUTS}, {_WEIGHTS},
                dtype="int16x16"),
            T.broadcast(T.int16(1), 16), dtype="int32x8")
"""

_LLVM = {
    "vpdpbusd512": "llvm.x86.avx512.vpdpbusd.512",
    "vpdpbusd256": "llvm.x86.avx512.vpdpbusd.256",
    "sdot": "llvm.aarch64.neon.sdot.v4i32.v16i8",
}


def register(dot: Dot) -> None:
    """Make the intrinsic known to TVM under the dot product's name."""
    from tvm.s_tir import TensorIntrin

    if dot.name and TensorIntrin.get(dot.name, allow_missing=True) is None:
        body = _MULTIPLY_TWICE if dot.name == "pmaddubsw" else _CALL
        TensorIntrin.register(dot.name, _function(dot, _MEANING), _function(dot, body))


def _function(dot: Dot, body: str) -> Any:
    import tvm.script
    from tvm.script import tirx

    facts = {
        "lanes": dot.lanes, "quad": dot.quad, "bytes": dot.lanes * dot.quad,
        "data": "int8" if dot.signed else "uint8", "llvm": _LLVM.get(dot.name, ""),
    }  # fmt: skip
    source = _FORM.replace("{body}", body).format(**facts)
    return tvm.script.from_source(source, {"T": tirx})
