"""Access files, raw bytes and their checksums."""
