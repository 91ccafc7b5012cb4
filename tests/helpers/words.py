"""Command lines of the tests."""

TRAIN = ["train", "--model", "tiny", "--freeze-layers", "1"]  # the shortest training; add data, epochs and out
