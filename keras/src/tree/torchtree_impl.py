"""A masked tensor is one leaf of `keras.tree`."""

from keras.src.tree import torch_nodes as torch_tree
