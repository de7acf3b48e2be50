"""The vector store behind search."""
