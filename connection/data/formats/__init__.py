"""Reads the bytes of a file as rows of text cells."""
