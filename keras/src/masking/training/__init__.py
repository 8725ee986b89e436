"""Masked data on its way into a model and out, and what losses see of it."""
