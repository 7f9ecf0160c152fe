"""Floor 3: video codecs, one file each."""
