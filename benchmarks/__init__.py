"""Speed of the hot paths, as a ratio to the bare network passes they need, measured in the same run."""
