"""Finds code that handles masks the old way: `python -m keras.src.migration`.

Everything here reads sources and runs none of them.
"""
