"""Keeps XLA from fusing a chain of joints into one loop.

On a CPU, XLA of JAX 0.10 fuses instructions into one loop, and in it computes a value again for each instruction that reads
it. In a chain, each joint is read several times by the next one, so that the loop becomes several times slower with each
joint: see benchmarks/notes/task-cost.md. JAX 0.11 does not do this, and on accelerators long loops are what is wanted.
"""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
from jax.extend.core import ClosedJaxpr, Literal, Var

P = ParamSpec("P")
R = TypeVar("R")

# MJX joins the bodies of each level of the kinematic tree by it, before the next level reads them.
BARRIER_AFTER = "concatenate"
JIT = "jit"  # the primitive that calls a program of its own


def is_limited() -> bool:
    """Returns whether `limit_fusion` changes anything here: with JAX 0.10, where programs run on the CPU by default."""
    return jax.__version_info__ < (0, 11) and jax.default_backend() == "cpu"


def limit_fusion(function: Callable[P, R]) -> Callable[P, R]:
    """Returns a function of arrays that computes the same, with a barrier to fusion after each of its concatenations.

    There is none within its loops, branches, checkpoints and functions with derivatives of their own. Where nothing needs to
    be limited, see `is_limited`, the function is called as it is.

    Args:
        function: what JAX can trace, of pytrees of arrays.

    Returns:
        A function of the same arguments and results. Profiles and tracebacks no longer name the lines of the original one.
    """

    def limited(*args: P.args, **kwargs: P.kwargs) -> R:
        if not is_limited():
            return function(*args, **kwargs)
        program, result = jax.make_jaxpr(function, return_shape=True)(*args, **kwargs)
        outputs = _run(program, jax.tree.leaves((args, kwargs)))
        return jax.tree.unflatten(jax.tree.structure(result), outputs)

    return limited


def _run(program: ClosedJaxpr, arguments: list[Any]) -> list[Any]:
    """Returns the outputs of a program, computed instruction by instruction."""
    jaxpr = program.jaxpr
    values: dict[Var, Any] = dict(zip(jaxpr.constvars, program.consts, strict=True))
    values.update(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Var | Literal) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for equation in jaxpr.eqns:
        primitive, inputs = equation.primitive, [read(atom) for atom in equation.invars]
        if primitive.name == JIT:
            outputs = _run(equation.params["jaxpr"], inputs)
        else:
            with equation.ctx.manager:
                found = primitive.bind(*inputs, **primitive.get_bind_params(equation.params))
            outputs = found if primitive.multiple_results else [found]
        if primitive.name == BARRIER_AFTER:
            outputs = jax.lax.optimization_barrier(outputs)
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]
