"""Traces, metrics and logs: their names, and how a process sets them up."""
