"""What an answer must look like: a JSON schema or a regular expression, as masks over the vocabulary. No torch."""
