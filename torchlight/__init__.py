"""A training engine that knows (inputs, label, index) and nothing of what they mean."""
