"""Studies of the method, evaluation in the field's formats, and a load benchmark."""
