"""What `k8s/` renders to, and the rules that it keeps."""
