"""Finished runs read back, compared and reported; the paper's grid and its runner."""
