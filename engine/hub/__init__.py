"""The Hugging Face Hub: what is on it, what of it is here, and fetching the rest; nothing here imports torch."""
