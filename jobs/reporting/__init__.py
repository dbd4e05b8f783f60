"""Show jobs on the terminal, as lines of JSON, in tables and as an HTML page."""
