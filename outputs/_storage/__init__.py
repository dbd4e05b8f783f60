"""Files, raw bytes and their checksums."""
