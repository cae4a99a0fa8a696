"""Turns figures into tables, pages and CSV files."""
