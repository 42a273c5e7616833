"""Downloads of published files: annotations, lists of the splits, teachers, the student."""
