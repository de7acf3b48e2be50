"""Drawing of portraits: body, face, hair, headwear, letters, rasterised without a model."""
