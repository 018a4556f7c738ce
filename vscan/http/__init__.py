"""Serving HTTP, for the gateway and the page: nothing here is imported by what works without their extras."""
