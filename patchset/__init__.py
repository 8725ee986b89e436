"""Composes upstream's release with the overlay in `keras/` into a fork."""
