"""Extensions: `words` works, each of the others misbehaves in a way of its own."""
