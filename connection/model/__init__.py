"""A folder becomes a BERT with sentence vectors, and a folder again."""
