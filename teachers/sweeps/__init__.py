"""Experiments: grids of teachers with several seeds each, and their figures."""
