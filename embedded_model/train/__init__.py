"""Training of the embedded model, from nothing to the checkpoint, in five stages.

1. `vision`: the encoder alone, on labels. 2. `language`, at the same time: the language model
alone, on oracle visual tokens. 3. `bridge`: the projector, by regression from features to oracle
tokens. 4. `joint`: everything together. 5. `dropout`: the same with visual-token dropout.
"""
