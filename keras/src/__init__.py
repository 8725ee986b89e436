"""The rooms that fill in hooks are imported with Keras."""

from keras.src.masking import casting
from keras.src.masking import dispatch
from keras.src.masking import symbolic
from keras.src.ops import carry
