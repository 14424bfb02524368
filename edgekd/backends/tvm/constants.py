"""Weights rearranged once, here, with NumPy.

TVM's own FoldConstant compiles a kernel for every weight that it moves: half a minute for a
MobileNet where this takes none.
"""

from typing import Any

import numpy as np


def rearranged(module: Any) -> Any:
    """Transposed, reshaped and cast constants as constants, wherever they are used.

    Squeezes become reshapes on the way: converting the layout of one with a negative axis crashes
    TVM.
    """
    from tvm import relax
    from tvm.ir.expr import GenericConst

    @relax.expr_functor.mutator
    class Fold(relax.PyExprMutator):  # type: ignore[misc]
        def visit_call_(self, call: Any) -> Any:
            call = self.visit_expr_post_order(call)
            name = getattr(call.op, "name", "")
            if name.startswith("relax."):
                arguments = [self._constant(argument) for argument in call.args]
                call = relax.Call(call.op, arguments, call.attrs, call.ty_args)
                call = self.builder_.normalize(call)
            if name in FOLDED and isinstance(call.args[0], GenericConst):
                return relax.const(_value(name, call, call.args[0].value.numpy()))
            if name == "relax.squeeze":
                return relax.op.reshape(call.args[0], call.ty.shape)
            return call

        def _constant(self, argument: Any) -> Any:
            if isinstance(argument, relax.Var):
                bound = self.lookup_binding(argument)
                if isinstance(bound, GenericConst):
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
