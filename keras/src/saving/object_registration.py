"""Two composite types do not share a registered name, files would mix them."""

import inspect

from keras.src.api_export import keras_export
from keras.src.backend.common.composite import CompositeBase
from patchset.markers import keeps
from patchset.markers import new


@keeps("_register_any")
@keras_export(
    [
        "keras.saving.register_keras_serializable",
        "keras.utils.register_keras_serializable",
    ]
)
def register_keras_serializable(package="Custom", name=None):
    """Decorator: registers an object with the Keras serialization framework.

    Args:
        package: The package that it belongs to, the first part of its name in
            files, which is `"package>name"`.
        name: The second part. Defaults to the name of the class or function.

    Returns:
        A decorator, which returns what it decorates.

    Raises:
        ValueError: If the object is a class without a `get_config()`; or a
            composite tensor, and another module has registered one under the
            same name.

    Example:

    >>> @keras.saving.register_keras_serializable("my_package")
    ... class Pair(keras.CompositeTensor):
    ...     left: keras.KerasTensor
    ...     right: keras.KerasTensor
    >>> keras.saving.get_registered_name(Pair)
    'my_package>Pair'
    """
    register = _register_any(package, name)

    def decorator(arg):
        if inspect.isclass(arg) and issubclass(arg, CompositeBase):
            _refuse_a_second(arg, f"{package}>{name or arg.__name__}")
        return register(arg)

    return decorator


@new
def _refuse_a_second(type_, registered_name):
    other = GLOBAL_CUSTOM_OBJECTS.get(registered_name)
    if other is not None and other.__module__ != type_.__module__:
        raise ValueError(
            f"'{registered_name}' is the name in files of `{other.__name__}` "
            f"of module `{other.__module__}`, so that `{type_.__name__}` of "
            f"module `{type_.__module__}` cannot have it, too. Give another "
            "`package` or `name`."
        )
