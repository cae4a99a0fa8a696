"""Figures become tables, pages and CSV files for a person."""
