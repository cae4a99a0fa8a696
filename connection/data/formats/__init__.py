"""A file's bytes become rows of text cells."""
