"""The public name of the backend's composite tensor."""

from keras.src.api_export import keras_export
from keras.src.backend import CompositeTensor

keras_export("keras.CompositeTensor")(CompositeTensor)
