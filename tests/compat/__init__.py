"""Whether neighbouring releases work together: recorded messages, and mixed deployments."""
