"""Floor 3: image codecs, one file each."""
