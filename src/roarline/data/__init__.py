"""One file a data set; splits, ground truth, and the pixels of a prepared data set."""
