"""Rearranges weights once, at compile time, with NumPy.

TVM's own FoldConstant compiles a kernel for every weight that it moves: half a minute for a
MobileNet where this takes none.
"""

from typing import Any

import numpy as np


def is_constant(expression: Any) -> bool:
    """Whether an expression of a Relax program is a constant tensor."""
    import tvm
    from tvm import relax

    # TVM 0.27 replaced relax.Constant with a class that all dialects of its IR share.
    kind = getattr(tvm.ir, "GenericConst", None) or relax.Constant
    return isinstance(expression, kind)


def array_of(constant: Any) -> np.ndarray:
    """A copy of the values of a constant tensor."""
    tensor = constant.value if hasattr(constant, "value") else constant.data  # 0.27, 0.26
    return np.asarray(tensor.numpy())


def rearranged(module: Any) -> Any:
    """Fold transposed, reshaped and cast constants into constants, wherever they are used.

    Squeezes become reshapes on the way: converting the layout of one with a negative axis crashes
    TVM.
    """
    from tvm import relax

    @relax.expr_functor.mutator
    class Fold(relax.PyExprMutator):  # type: ignore[misc]
        def visit_call_(self, call: Any) -> Any:
            call = self.visit_expr_post_order(call)
            name = getattr(call.op, "name", "")
            if name.startswith("relax."):
                arguments = [self._constant(argument) for argument in call.args]
                call = relax.Call(call.op, arguments, call.attrs, call.ty_args)
                call = self.builder_.normalize(call)
            if name in FOLDED and is_constant(call.args[0]):
                return relax.const(_value(name, call, array_of(call.args[0])))
            if name == "relax.squeeze":
                return relax.op.reshape(call.args[0], call.ty.shape)
            return call

        def _constant(self, argument: Any) -> Any:
            if isinstance(argument, relax.Var):
                bound = self.lookup_binding(argument)
                if is_constant(bound):
                    return bound
            return argument

    visitor = Fold(module)
    for name, function in module.functions_items():
        if isinstance(function, relax.Function):
            visitor.builder_.update_func(name, visitor.visit_expr(function))
    return relax.transform.DeadCodeElimination()(visitor.builder_.get())


FOLDED = {
    "relax.permute_dims",
    "relax.reshape",
    "relax.expand_dims",
    "relax.squeeze",
    "relax.astype",
}


def _value(name: str, call: Any, value: np.ndarray) -> np.ndarray:
    if name == "relax.permute_dims":
        axes = call.attrs.axes
        value = value.transpose([int(axis) for axis in axes] if axes is not None else None)
    elif name == "relax.astype":
        value = value.astype(str(call.ty.dtype))
    else:
        value = value.reshape([int(size) for size in call.ty.shape])
    return np.ascontiguousarray(value)
