"""The public name of the backend's masked tensor."""

from keras.src.api_export import keras_export
from keras.src.backend import MaskedTensor

keras_export("keras.MaskedTensor")(MaskedTensor)
