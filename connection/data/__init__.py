"""Reads pair files as checked rows, stores their token ids, audits them and splits them."""
