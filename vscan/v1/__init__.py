"""Generated from `proto/vscan/v1` by `make proto`. Do not edit."""
