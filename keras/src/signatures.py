"""What a wrapper of upstream's that passes its arguments on looks like."""

import inspect
import typing

P = typing.ParamSpec("P")
R = typing.TypeVar("R")
REST = inspect.Parameter.VAR_KEYWORD
ANY_NUMBER = (inspect.Parameter.VAR_POSITIONAL, REST)


def as_kept(
    kept: typing.Callable[P, R],
) -> typing.Callable[[typing.Callable], typing.Callable[P, R]]:
    """Decorator: the function has the signature of the one that it wraps.

    Parameters that it has beside those come last, by name alone. Without a
    docstring, it has the other one's, too. `pip_build.py` puts it on each
    definition that keeps upstream's and takes `*args` and `**kwargs`.

    Args:
        kept: The function that is wrapped.
    """

    def decorated(function):
        signature = inspect.signature(kept)
        found = dict(signature.parameters)
        own = inspect.signature(function).parameters
        rest = [
            found.pop(n)
            for n, p in signature.parameters.items()
            if p.kind is REST
        ]
        for name, p in own.items():
            if name not in found and p.kind not in ANY_NUMBER:
                found[name] = p.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        function.__signature__ = signature.replace(
            parameters=[*found.values(), *rest]
        )
        function.__doc__ = function.__doc__ or kept.__doc__
        return function

    return decorated
