"""An attribution method for roarline, in a package of its own."""
