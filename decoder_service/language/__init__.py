"""Language models: one file for each family; nothing else says a family's name."""
