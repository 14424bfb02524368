"""What LiteRT computes: its reference kernels, which other implementations are compared with, or
those that it runs by itself; and what TensorFlow Lite Micro does."""

import numpy as np


def by_litert(content: bytes, inputs: np.ndarray, reference: bool = True) -> np.ndarray:
    """(N, bytes) from a TFLite file's content for (N, bytes)."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kernels = OpResolverType.BUILTIN_REF if reference else OpResolverType.AUTO
    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=kernels)
    interpreter.allocate_tensors()
    (entry,), (exit_,) = interpreter.get_input_details(), interpreter.get_output_details()
    rows = []
    for row in inputs:
        interpreter.set_tensor(entry["index"], row.reshape(entry["shape"]))
        interpreter.invoke()
        rows.append(interpreter.get_tensor(exit_["index"]).reshape(-1).copy())
    return np.stack(rows)


def by_micro(content: bytes, inputs: np.ndarray) -> np.ndarray:
    """(N, bytes) from TensorFlow Lite Micro's kernels for (N, bytes)."""
    from tflite_micro import runtime

    interpreter = runtime.Interpreter.from_bytes(content, arena_size=4 << 20)
    shape = interpreter.get_input_details(0)["shape"]
    rows = []
    for row in inputs:
        interpreter.set_input(row.reshape(shape), 0)
        interpreter.invoke()
        rows.append(np.asarray(interpreter.get_output(0)).reshape(-1).copy())
    return np.stack(rows)
