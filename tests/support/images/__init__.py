"""Builds container images without an engine: a Dockerfile's instructions, run in chroots over overlay mounts."""
