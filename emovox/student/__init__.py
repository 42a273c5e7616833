"""The student: a speech network that learns the teacher's logits from audio alone."""
