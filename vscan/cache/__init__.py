"""The cache of visual tokens: sealed entries in memory and in Redis."""
