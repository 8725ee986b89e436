"""Masks along a model, to look at."""
