"""What developers run: the check of needs, the virtual environment, generated code and generated pages."""
