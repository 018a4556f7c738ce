"""The simulation against the services themselves: `python -m bench.capacity validate`."""
