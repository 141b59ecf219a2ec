"""What every room stands on: one error type, clean text, durable files, and the home folder."""
