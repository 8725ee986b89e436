"""Finds code that handles masks the old way, for `keras.src.masking.migrate`.

Everything here reads sources and runs none of them.
"""
