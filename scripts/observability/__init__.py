"""Dashboard and manifests, made from what lies in `observability/`."""
