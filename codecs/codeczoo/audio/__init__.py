"""Floor 3: audio codecs, one file each."""
