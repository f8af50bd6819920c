"""Sentence pairs: read, linked, chosen."""
