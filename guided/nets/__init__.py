"""Plain ``nn.Module`` families, one a file; nothing here reads files or knows prompts."""
