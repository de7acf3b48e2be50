"""One fit loop and one training objective a file."""
