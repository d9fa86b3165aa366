"""Measurements behind the documentation's figures: what the program costs, and how it was chosen."""
