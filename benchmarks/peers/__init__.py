"""The same work through roarline and through peers that pip installs, in turns; see ``__main__``."""
