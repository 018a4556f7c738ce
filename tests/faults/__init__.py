"""Breaks each part of a running deployment while clients ask, and counts what becomes of every request."""
