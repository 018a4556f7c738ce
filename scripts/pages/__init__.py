"""The generated pages of `docs/`: each module makes the text of one."""
