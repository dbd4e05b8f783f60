"""The file format: names, description, tiles, layout and ledger of a result."""
