"""From files to answers: recognizer, evaluation, metrics and plots."""
