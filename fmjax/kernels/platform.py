"""A function that is one kernel each way where a program is made for CUDA, and XLA's own elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax

Computed = Callable[..., Any]  # of a form, which is no array, and trees of arrays


@cache
def on_cuda(values: Computed, gradients: Computed, plain: Computed) -> Computed:
    """`plain` of a form and two trees of arrays, which are all that is kept of it.

    values: the same by a kernel. gradients: of both trees, by a kernel that is given the gradient behind them.
    """

    # made once of the same three (`cache`): what was traced of it is found again
    @partial(jax.custom_vjp, nondiff_argnums=(0,))
    def computed(form: Any, *given: Any) -> Any:
        kernel, default = partial(values, form), partial(plain, form)
        return jax.lax.platform_dependent(*given, cuda=kernel, default=default)

    def forward(form: Any, *given: Any) -> Any:
        return computed(form, *given), given

    def backward(form: Any, kept: Any, gradient: Any) -> Any:
        def by_xla(first: Any, second: Any, gradient: Any) -> Any:
            return jax.vjp(partial(plain, form), first, second)[1](gradient)

        kernel = partial(gradients, form)
        return jax.lax.platform_dependent(*kept, gradient, cuda=kernel, default=by_xla)

    computed.defvjp(forward, backward)
    return computed
