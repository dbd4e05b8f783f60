"""What a job records about itself: description, provenance, status file."""
