"""How the services speak gRPC: the server's life, channels, interceptors, errors on the wire."""
