"""The grammar of the world: captions, claims, contrast prompts, questions, tags, corpora."""
