"""Tests that need root or Debian packages: `make test-system`, run by `.ci/run`."""
