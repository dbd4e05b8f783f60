"""Worker processes, one for each device, and how blocks return from them."""
