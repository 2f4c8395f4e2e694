"""YAML to a typed experiment, and the tables of what it may name. Imports no torch."""
