"""Measurements behind the documentation's figures; each is a command."""
