"""Use of the vectors of many sentences: linking, search, explanation, and which pairs to label next."""
