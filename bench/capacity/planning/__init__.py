"""From a demand and a profile to replicas, memory and network, by formulas: `plan(profile, demand)`."""
