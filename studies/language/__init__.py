"""The studies of the language model: what its layers look at, what they would keep, and when they have made up their mind."""
