"""Training objectives for any folder of captioned images, one a file."""
