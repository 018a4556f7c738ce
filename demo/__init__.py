"""`make demo`: an album of drawn pictures, asked about through the SDK over the real services."""
